"""`shrk set`: change one setting of this node."""

from shrk_node_agent.config_command import set_ as app

__all__ = ["app"]
