"""The command `shrk node` as its users read it."""

from __future__ import annotations

from typer.testing import CliRunner

from shrk_node_agent.cli import app
from shrk_node_agent.settings import AgentSettings


def test_help_names_every_setting_whether_it_is_an_option_or_stands_in_the_file() -> None:
    said = CliRunner().invoke(app, ["run", "--help"], terminal_width=200).output
    missing = [name for name in AgentSettings.model_fields if name not in said and f"SHRK_{name.upper()}" not in said]
    assert not missing
