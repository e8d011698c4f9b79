"""`shrk wait`: told by the agent's changes, and never longer than it may take."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.wait import app
from support.asked_agent import SECONDS_MAX, PlayedAgent


def test_a_state_that_is_there_is_not_waited_for(agent: PlayedAgent) -> None:
    assert CliRunner().invoke(app, ["--for", "online", "--timeout", "0"]).exit_code == Exit.OK
    agent.change(state="busy")
    assert CliRunner().invoke(app, ["--for", "online", "--timeout", "0"]).exit_code == Exit.OK


def test_it_returns_at_the_change(agent: PlayedAgent) -> None:
    agent.change(state="loading", reason="reading weights")

    def load() -> None:
        agent.looked_at.wait(SECONDS_MAX)
        agent.change(state="online", reason="")

    loading = threading.Thread(target=load)
    loading.start()
    result = CliRunner().invoke(app, ["--for", "online"])
    loading.join()
    assert result.exit_code == Exit.OK
    assert result.stderr in ("it is loading, reading weights\n", "")


def test_a_state_that_does_not_come_ends_it_with_seven_and_says_what_is(agent: PlayedAgent) -> None:
    agent.change(state="cooling", reason="GPU 0 is at 70 °C")
    result = CliRunner().invoke(app, ["--for", "online", "--timeout", "0.05"])
    assert result.exit_code == Exit.TIMEOUT
    assert "shrk: not online within 0.05 s: it is cooling, GPU 0 is at 70 °C" in result.stderr


def test_a_node_without_a_link_is_not_online(agent: PlayedAgent) -> None:
    agent.change(link="refused", link_reason="revoked")
    result = CliRunner().invoke(app, ["--for", "online", "--timeout", "0"])
    assert result.exit_code == Exit.TIMEOUT
    assert "not linked (revoked)" in result.stderr


def test_an_agent_that_does_not_run_yet_is_waited_for(agent: PlayedAgent) -> None:
    agent.close()
    assert CliRunner().invoke(app, ["--for", "online", "--timeout", "0.05"]).exit_code == Exit.TIMEOUT
    opening = threading.Timer(0.0, agent.open)
    opening.start()
    assert CliRunner().invoke(app, ["--for", "online"]).exit_code == Exit.OK
    opening.join()


def test_offline_is_what_does_not_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--for", "offline", "--state-dir", str(tmp_path)])
    assert result.exit_code == Exit.OK


@pytest.mark.parametrize("state", ["on", "cold"])
def test_a_state_that_is_none_is_refused_with_those_that_are(state: str) -> None:
    result = CliRunner().invoke(app, ["--for", state])
    assert result.exit_code == Exit.USAGE
    assert "off-schedule" in result.stderr
