"""The status document of a real agent's state, and what people read of it."""

from __future__ import annotations

from datetime import UTC, datetime

from shrk_contract.terms import Endpoint, Pin
from shrk_node_agent import status
from shrk_node_agent.commands.status_text import status_text
from shrk_node_agent.driver import Driver
from shrk_node_agent.engine.engine import EngineProcess, EngineSpec
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from shrk_node_agent.state.terms.terms import Terms, Wanted
from support import status_documents

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
GB = 10**9


async def _nothing_starts(spec: EngineSpec, on_event: object) -> EngineProcess:
    raise AssertionError("nothing is to start")


def a_driver() -> Driver:
    """Two cards of 24 GB; the small model serves on the first, and the large one fits nowhere."""
    needs = (Need("small", "small", 5 * GB), Need("large", "large", 90 * GB))
    state = NodeState(needs, terms=Terms(Wanted(gpus=True)))
    specs = [EngineSpec(name, name, f"org/{name}-2026") for name in ("small", "large")]
    driver = Driver(specs, _nothing_starts, changed=lambda: None, state=state)
    cards = tuple(GpuReading(f"GPU-{n}", n, "RTX 4090", 24 << 30, None, 41.0) for n in (0, 1))
    for now in (0.0, 1.0):
        state.handle(seen.SensorsRead(now, cards, {}, frozenset()))
    state.handle(seen.Tick(1.25, NOON))
    state.handle(seen.EngineBecameReady(2.0, "small", Pin(), (Endpoint.CHAT_COMPLETIONS,), 16, 4096))
    return driver


def test_what_tests_of_the_commands_play_is_what_an_agent_tells() -> None:
    told = status.document(a_driver(), "n-1", "attic", None)
    played = status_documents.healthy()
    # What only the whole agent knows.
    assert played.keys() - told.keys() == {"version", "uptime_seconds", "coordinator", "schedule", "settings_error"}
    for of_agent, of_test in ((told["gpus"], played["gpus"]), (told["engines"], played["engines"])):
        assert of_test[0].keys() <= of_agent[0].keys()


def test_each_engine_names_the_source_that_its_agent_starts_it_from() -> None:
    told = status.document(a_driver(), "n-1", "attic", None)
    assert [engine["source"] for engine in told["engines"]] == ["org/small-2026", "org/large-2026"]


def test_people_see_which_model_is_on_which_gpu_and_why_one_is_on_none() -> None:
    told = status_text(status.document(a_driver(), "n-1", "attic", None))
    first, second = (line for line in told.splitlines() if line.startswith("GPU"))
    assert first.endswith("small 0 of 16 running")
    assert second.endswith("-")
    assert "Not serving: large: paused, It is too large for this machine: needs 90.0 GB, GPU 0 has" in told
    assert "Since the start  0 requests" in told
