"""`shrk get`: one setting of this node."""

from shrk_node_agent.config_command import get as app

__all__ = ["app"]
