"""`shrk config`: show and check this node's settings."""

from shrk_node_agent.config_command import config as app

__all__ = ["app"]
