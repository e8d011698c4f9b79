"""An engine's life as the agent sees it."""

from __future__ import annotations

from shrk_contract.terms import Pin, State
from shrk_node_agent.state.engines import EngineView
from shrk_node_agent.state.events import EngineBecameReady, EngineEnded, EngineProgressed


def test_an_engine_goes_from_starting_over_loading_to_online_and_back() -> None:
    engine = EngineView("e", "m")
    engine.started(1.0)
    states = [engine.state]
    engine.progressed(EngineProgressed(2.0, "e", "loading weights", 0.1))
    states.append(engine.state)
    engine.became_ready(EngineBecameReady(3.0, "e", Pin(), (), 4, 100))
    states.append(engine.state)
    engine.ended(EngineEnded(4.0, "e", "killed", incompatible=False))
    states.append(engine.state)
    assert states == [State.STARTING, State.LOADING, State.ONLINE, State.STARTING]
    assert (engine.since, engine.start_at, engine.detail) == (4.0, 5.0, "")


def test_the_time_of_a_start_counts_from_its_beginning_whatever_its_parts_are_called() -> None:
    engine = EngineView("e", "m")
    engine.started(1.0)
    for now, detail in ((2.0, "loading"), (9.0, "warming up")):
        engine.progressed(EngineProgressed(now, "e", detail, None))
    assert engine.since == 1.0


def test_load_is_in_flight_attempts_per_slot() -> None:
    engine = EngineView("e", "m", slots=4, in_flight=2)
    assert engine.load == 0.5
