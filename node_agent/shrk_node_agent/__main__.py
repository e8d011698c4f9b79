"""`python -m shrk_node_agent`: the same as `shrk node`."""

from __future__ import annotations

from shrk_node_agent.cli import app

app(prog_name="shrk node")
