"""`shrk status` of an agent that answers, and of one that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.status import app
from support.asked_agent import PlayedAgent
from support.status_documents import healthy, outside_hours, too_hot


def test_a_node_that_takes_work_ends_it_with_success(agent: PlayedAgent) -> None:
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stderr) == (Exit.OK, "")
    assert result.stdout.startswith("● shrk 0.1.0  ONLINE · serves 1 of 2 models")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("document", [too_hot(), outside_hours(), healthy(link="connecting"), healthy(state="paused")])
def test_a_node_that_runs_and_takes_no_work_ends_it_with_four(agent: PlayedAgent, document: dict[str, object]) -> None:
    agent.change(**document)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == Exit.NOT_ELIGIBLE
    assert str(document["state"]).upper() in result.stdout


def test_json_is_the_document_itself(agent: PlayedAgent) -> None:
    result = CliRunner().invoke(app, ["--json"])
    assert json.loads(result.stdout) == agent.document
    assert result.exit_code == Exit.OK


def test_an_agent_that_does_not_run_is_told_with_its_last_words_and_the_next_command(
    agent: PlayedAgent,
) -> None:
    agent.close()
    (agent.folder / "logs").mkdir()
    (agent.folder / "logs" / "agent.log").write_text('{"event": "stopped", "level": "info"}\nshrk: no disk is left\n')
    result = CliRunner().invoke(app, [])
    assert result.exit_code == Exit.NOT_RUNNING
    assert result.stdout == (
        f"● shrk  NOT RUNNING   {agent.folder}\n  It said last:\n  | info stopped\n  | shrk: no disk is left\n"
        "  -> shrk start\n"
    )


def test_json_of_an_agent_that_does_not_run_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--json", "--state-dir", str(tmp_path)])
    assert result.exit_code == Exit.NOT_RUNNING
    assert json.loads(result.stdout) == {
        "schema": 1,
        "running": False,
        "state": "offline",
        "state_dir": str(tmp_path),
        "reason": "",
        "service": "",
        "next_action": f"shrk start --state-dir {tmp_path}",
    }


def test_watching_shows_each_change(agent: PlayedAgent) -> None:
    program = "from shrk_node_agent.commands.status import app; app()"
    watching = subprocess.Popen([sys.executable, "-c", program, "--watch", "--json"], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    try:
        states = []
        for change in ({"state": "busy"}, {"state": "cooling"}, {}):
            line = json.loads(watching.stdout.readline())
            states.append(line["state"])
            if change:
                agent.change(**change)
        agent.close()
        while (line := json.loads(watching.stdout.readline()))["state"] == "cooling":
            pass
        assert states == ["online", "busy", "cooling"]
        assert line["running"] is False
    finally:
        watching.kill()
        watching.wait()
        watching.stdout.close()
