"""`shrk doctor`: it passes only where the token came back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_contract.settings import load
from shrk_node_agent import control_client
from shrk_node_agent.checklist import Mark
from shrk_node_agent.doctor import Findings, app, examine, text
from shrk_node_agent.link import identity as identities
from shrk_node_agent.settings import AgentSettings
from support.identities import an_identity
from support.played_agent import CHECKS, PROBED, STATUS, WHY, PlayedAgent, a_played_agent
from support.raw_coordinator import unix_ms

SPECIFIED = {"engine": "sim", "catalogue": {"m": {"source": "x"}}}
CALM = {**WHY, "at_unix_ms": None}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[PlayedAgent]:
    with a_played_agent() as agent:
        identities.save(agent.folder / "identity", an_identity(tmp_path))
        agent.says("GET", "/why", CALM)
        yield agent


def examined(agent: PlayedAgent, *, quick: bool = False, model: str = "", **settings: object) -> Findings:
    return examine(
        agent.folder,
        lambda: load(AgentSettings, state_dir=agent.folder, **{**SPECIFIED, **settings}),
        lambda method, path, body, seconds: control_client.ask(agent.folder, method, path, body, seconds),
        unix_ms,
        model=model,
        quick=quick,
    )


def failures(found: Findings) -> list[str]:
    return [line.name for line in found.lines if line.mark is Mark.FAILED]


def test_a_node_that_is_well_passes_with_its_token_and_how_long_it_took(agent: PlayedAgent) -> None:
    found = examined(agent, model="m")
    assert (found.exit_code, failures(found), found.first_token_ms) == (0, [], 12)
    assert ("POST", "/probe", b'{"model": "m"}') in agent.asked
    assert text(found).endswith("This node is well: a real token came back.")
    assert "its first token after 12 ms" in text(found)


def test_everything_green_and_no_token_is_not_well(agent: PlayedAgent) -> None:
    agent.says("POST", "/probe", {**PROBED, "passed": False, "reason": "no token came within 60 s", "next_action": "x"})
    found = examined(agent)
    assert (found.exit_code, failures(found)) == (4, ["token"])
    assert "1 of" in text(found)


def test_a_quick_one_asks_for_no_token_and_does_not_claim_one(agent: PlayedAgent) -> None:
    found = examined(agent, quick=True)
    assert (found.exit_code, found.first_token_ms) == (0, None)
    assert [method for method, *_ in agent.asked] == ["GET", "GET"]
    assert "a real token came back" not in text(found)


def test_a_node_that_would_not_be_asked_fails_with_4_though_its_machine_is_well(agent: PlayedAgent) -> None:
    hot = {"name": "temperature", "passed": False, "reason": "71 °C", "word": "cooling", "next_action": "More air."}
    agent.says("GET", "/why", {**CALM, "eligible": False, "state": "cooling", "checks": [CHECKS[0], hot]})
    agent.says("POST", "/probe", {**PROBED, "passed": False, "reason": "71 °C", "next_action": "More air."})
    found = examined(agent)
    assert (found.exit_code, failures(found)) == (4, ["temperature", "token"])


def test_what_no_check_explains_is_still_a_failure(agent: PlayedAgent) -> None:
    agent.says("GET", "/why", {**CALM, "eligible": False, "state": "starting"})
    found = examined(agent, quick=True)
    assert (found.exit_code, failures(found)) == (4, ["eligible"])


def test_a_coordinator_that_is_too_old_to_tell_is_a_failure_with_its_remedy(agent: PlayedAgent) -> None:
    old = {"problem": "old_coordinator", "reason": "too old", "next_action": "Have it updated.", "checks": []}
    agent.says("GET", "/why", {**CALM, **old, "eligible": False})
    agent.says("POST", "/probe", {**PROBED, **old, "passed": False})
    found = examined(agent)
    assert (found.exit_code, failures(found)) == (4, ["verdict", "token"])
    assert "Have it updated." in text(found)


def test_a_machine_that_is_not_well_fails_with_1_though_the_token_came(agent: PlayedAgent) -> None:
    agent.folder.chmod(0o755)
    found = examined(agent)
    assert (found.exit_code, failures(found)) == (1, ["folder"])
    assert found.first_token_ms == 12


def test_clocks_that_differ_are_told_with_how_far(agent: PlayedAgent) -> None:
    agent.says("GET", "/why", {**WHY, "at_unix_ms": unix_ms() + 3_600_000})
    found = examined(agent)
    assert (found.exit_code, failures(found)) == (1, ["clock"])
    assert "behind the coordinator's" in text(found)


def test_settings_that_cannot_be_used_are_told_and_the_rest_is_looked_at_all_the_same(agent: PlayedAgent) -> None:
    found = examined(agent, drain_seconds=-1)
    assert (found.exit_code, failures(found)) == (1, ["settings"])
    assert "drain-seconds" in text(found)
    assert found.first_token_ms == 12


def test_without_an_agent_it_ends_with_3_and_no_line_repeats_the_remedy(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "--json"], env={"SHRK_CONFIG": str(tmp_path / "no")})
    assert ran.exit_code == 3
    found = json.loads(ran.stdout)
    assert (found["schema"], found["passed"], found["exit_code"]) == (1, False, 3)
    [line] = [check for check in found["checks"] if check["name"] == "agent"]
    assert (line["mark"], line["next_action"]) == ("failed", "shrk start")
    assert line["reason"].startswith("it does not run: there is no ")


def test_a_lost_gpu_and_an_incompatible_model_are_told(agent: PlayedAgent) -> None:
    gpus = [
        {"index": 0, "temperature_celsius": 61.0, "lost": False},
        {"index": 1, "temperature_celsius": None, "lost": True},
    ]
    broken = {"id": "z", "model": "z", "state": "incompatible", "reason": "no such file", "detail": ""}
    agent.says("GET", "/status", {**STATUS, "gpus": gpus, "engines": [broken]})
    found = examined(agent)
    assert failures(found) == ["gpu", "model z"]
    assert "the driver has lost GPU 1" in text(found)
    assert "shrk logs z" in text(found)
    agent.says("GET", "/status", {**STATUS, "gpus": gpus[:1]})
    assert "1 GPU, the hottest at 61 °C" in text(examined(agent))
