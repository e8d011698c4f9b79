"""`shrk pause` and `shrk resume`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands import pause, resume
from shrk_node_agent.commands.ending import Exit
from support.asked_agent import PlayedAgent


def test_a_pause_is_asked_for_in_seconds_and_told_with_its_end(agent: PlayedAgent) -> None:
    result = CliRunner().invoke(pause.app, ["2h"])
    assert result.exit_code == Exit.OK
    assert agent.asked == [("pause", 7200.0)]
    assert result.stdout.startswith("Paused for 2 h, until ")
    assert result.stdout.endswith("Sooner: shrk resume\n")


def test_a_pause_without_a_length_has_no_end(agent: PlayedAgent) -> None:
    assert CliRunner().invoke(pause.app, []).stdout == "Paused until you say: shrk resume\n"
    assert agent.asked == [("pause", None)]


def test_until_is_two_words(agent: PlayedAgent) -> None:
    assert CliRunner().invoke(pause.app, ["until", "08:00"]).exit_code == Exit.OK
    [(verb, seconds)] = agent.asked
    assert verb == "pause"
    assert 0 < seconds <= 25 * 3600


@pytest.mark.parametrize("words", [["2"], ["tomorrow"], ["until", "25:00"], ["31d"]])
def test_what_is_no_length_of_time_asks_the_agent_for_nothing(agent: PlayedAgent, words: list[str]) -> None:
    result = CliRunner().invoke(pause.app, words)
    assert result.exit_code == Exit.USAGE
    assert "until 08:00" in result.stderr
    assert agent.asked == []


def test_the_end_of_a_pause_tells_what_the_node_is_then(agent: PlayedAgent) -> None:
    agent.change(state="off-schedule", reason="Its hours are over")
    result = CliRunner().invoke(resume.app, [])
    assert result.stdout == "Not paused; the node is off-schedule: Its hours are over\n"
    assert agent.asked == ["resume"]


@pytest.mark.parametrize("verb", [pause.app, resume.app])
def test_without_an_agent_there_is_nothing_to_pause(agent: PlayedAgent, verb: object) -> None:
    agent.close()
    result = CliRunner().invoke(verb, [])  # type: ignore[arg-type]  # both are apps
    assert result.exit_code == Exit.NOT_RUNNING
    assert "shrk start" in result.stderr
