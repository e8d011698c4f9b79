"""`shrk why` as owners and scripts read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shrk_node_agent.why import app
from support.played_agent import CHECKS, WHY, PlayedAgent, a_played_agent


@pytest.fixture
def agent() -> Iterator[PlayedAgent]:
    with a_played_agent() as agent:
        yield agent


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(folder), *words])


HOT = {"name": "temperature", "passed": False, "reason": "71 °C", "word": "cooling", "next_action": "More air."}
COOLING = {**WHY, "eligible": False, "state": "cooling", "reason": "71 °C", "checks": [CHECKS[0], HOT]}


def test_a_node_that_is_asked_for_work_ends_with_0_and_what_is_merely_so_is_noted(agent: PlayedAgent) -> None:
    ran = run(agent.folder)
    assert ran.exit_code == 0
    assert ran.output == (
        "node_a is online: it is asked whenever somebody wants one of its models\n\n"
        "  passed   connected\n"
        "  noted    demand     nobody has asked for 'm' → Wait.\n"
    )


def test_a_node_that_is_not_ends_with_4_and_each_failure_says_what_to_do(agent: PlayedAgent) -> None:
    agent.says("GET", "/why", COOLING)
    ran = run(agent.folder)
    assert ran.exit_code == 4
    assert ran.output == (
        "node_a is cooling and gets no work: 71 °C\n\n  passed   connected\n  failed   temperature  71 °C → More air.\n"
    )


@pytest.mark.parametrize(
    ("problem", "checks", "code"),
    [
        ("not_linked", [{**HOT, "name": "connected", "reason": "no link"}], 4),
        ("old_coordinator", [], 1),
        ("too_many", [], 1),
        ("no_answer", [], 7),
    ],
)
def test_a_coordinator_that_does_not_tell_has_a_code_of_its_own(
    agent: PlayedAgent, problem: str, checks: list[object], code: int
) -> None:
    answer = {
        **WHY,
        "problem": problem,
        "eligible": False,
        "state": "",
        "reason": "it does not tell",
        "next_action": "Update it.",
        "checks": checks,
    }
    agent.says("GET", "/why", answer)
    ran = run(agent.folder)
    assert (ran.exit_code, "it does not tell" in ran.output) == (code, True)


def test_for_programs_it_is_the_agents_document_with_the_nodes_name(agent: PlayedAgent) -> None:
    ran = run(agent.folder, "--json")
    assert json.loads(ran.stdout) == {**WHY, "node_id": "node_a", "name": "attic"}


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_agent_that_does_not_run_ends_with_3_and_the_next_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = run(tmp_path, *words)
    assert ran.exit_code == 3
    assert "shrk start" in ran.output
    if words:
        assert json.loads(ran.stdout)["schema"] == 1


def test_a_strangers_words_move_no_cursor(agent: PlayedAgent) -> None:
    agent.says("GET", "/why", {**COOLING, "reason": "a\x1b[2Jb", "checks": [{**HOT, "reason": "c\rd"}]})
    ran = run(agent.folder)
    assert "a [2Jb" in ran.output
    assert "c d" in ran.output
