"""The simulated engine's command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shrk_node_agent.engine.engine import EngineSpec, Task
from shrk_node_agent.engine.simulator import SimulatorSpeed, launch


def test_only_what_is_set_is_said() -> None:
    it = launch(EngineSpec(id="e", model="m", source="", slots=3), Path("/s"))
    assert it.command == (
        *(sys.executable, "-P", "-m", "shrk_node_agent.engine.simulated"),
        *("--uds", "/s", "--model", "m", "--task", "generate", "--slots", "3"),
    )
    assert (it.pin.engine, it.pin.runner, it.source) == ("sim", "v2", None)


def test_task_context_and_speed_are_passed_on() -> None:
    spec = EngineSpec(id="e", model="m", source="", task=Task.EMBED, context_tokens=8192)
    it = launch(spec, Path("/s"), speed=SimulatorSpeed(first_token_ms=0.5, tokens_per_second=100_000.0, jitter_ms=0))
    words = " ".join(it.command)
    assert "--task embed" in words
    assert words.endswith("--context-tokens 8192 --first-token-ms 0.5 --tokens-per-second 100000 --jitter-ms 0")


def test_the_agents_own_settings_stay_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_JOIN_TOKEN", "secret")
    assert "SHRK_JOIN_TOKEN" not in launch(EngineSpec(id="e", model="m", source=""), Path("/s")).env
