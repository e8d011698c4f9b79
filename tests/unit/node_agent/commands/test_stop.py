"""`shrk stop`: the process that answers is the one that is waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.stop import app
from support.asked_agent import PlayedAgent


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """What plays the agent's process: it ends when its stdin does."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as played:
        yield played


def engines(agent: PlayedAgent, in_flight: int) -> list[dict[str, object]]:
    return [{**agent.document["engines"][0], "in_flight": in_flight}]


def ends(agent: PlayedAgent, process: subprocess.Popen[bytes]) -> None:
    """The socket goes, then the process: as an agent does it."""
    agent.looks = lambda: None
    agent.close_soon()
    assert process.stdin is not None
    process.stdin.close()


def test_it_asks_for_a_drain_and_ends_with_the_process(agent: PlayedAgent, process: subprocess.Popen[bytes]) -> None:
    agent.change(pid=process.pid, engines=engines(agent, 3))

    agent.stops = lambda: ends(agent, process)
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.exception) == (Exit.OK, None), result.output
    assert agent.asked == [("stop", False)]
    assert "The node agent has ended, after 0 s" in result.stdout
    assert process.wait() is not None


def test_progress_is_told_as_answers_end(agent: PlayedAgent, process: subprocess.Popen[bytes]) -> None:
    agent.change(pid=process.pid, engines=engines(agent, 2))
    left = iter((1, 0))

    def looks() -> None:
        """At each look after the stop one answer fewer is left; then nobody answers."""
        if not agent.asked:
            return
        if (count := next(left, None)) is not None:
            agent.change(engines=engines(agent, count))
        else:
            ends(agent, process)

    agent.looks = looks
    result = CliRunner().invoke(app, [])
    assert result.exit_code == Exit.OK
    told = [line.rpartition(",")[0] for line in result.stderr.splitlines()]
    assert told == ["Stopping: 2 answers under way", "Stopping: 1 answer under way", "Stopping: no answers under way"]


def test_now_asks_for_no_drain(agent: PlayedAgent, process: subprocess.Popen[bytes]) -> None:
    agent.change(pid=process.pid)
    agent.stops = lambda: ends(agent, process)
    assert CliRunner().invoke(app, ["--now"]).exit_code == Exit.OK
    assert agent.asked == [("stop", True)]


def test_stopping_what_does_not_run_is_success_with_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path)])
    assert result.exit_code == Exit.OK
    assert result.stdout.startswith("The node agent does not run: there is nothing to stop.")


def test_an_old_pid_file_is_nobody(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    (tmp_path / "lock").write_text(f"{process.pid}\n")
    assert CliRunner().invoke(app, ["--state-dir", str(tmp_path)]).exit_code == Exit.OK
    assert process.poll() is None
