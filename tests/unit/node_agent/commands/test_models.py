"""`shrk models`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.models import app, models_text
from support.asked_agent import PlayedAgent
from support.status_documents import engine

TABLE = """\
MODEL       STATE   GPU  RUNNING  WHY
qwen3.5-9b  online  0    18/16
llama-4-8b  paused  -    -        It needs 14.2 GB, and 11.6 GB are free
"""


@pytest.mark.parametrize("words", [[], ["ls"]])
def test_models_are_listed_with_their_state_and_why(agent: PlayedAgent, words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (Exit.OK, TABLE)


def test_json_has_a_schema_and_one_entry_a_model(agent: PlayedAgent) -> None:
    told = json.loads(CliRunner().invoke(app, ["ls", "--json"]).stdout)
    assert told["schema"] == 1
    assert [(model["model"], model["state"]) for model in told["models"]] == [
        ("qwen3.5-9b", "online"),
        ("llama-4-8b", "paused"),
    ]


def test_a_download_shows_how_far_it_is() -> None:
    assert "\nm      downloading 41 %  -" in models_text([engine("m", state="downloading", progress=0.41)])


def test_a_node_without_models_is_told_how_to_get_one() -> None:
    assert "shrk models suggest" in models_text([])
