"""`python -m shrk_coordinator`: the same as `shrk coordinator`."""

from __future__ import annotations

from shrk_coordinator.cli import app

app(prog_name="shrk coordinator")
