"""An engine's life as the agent sees it."""

from __future__ import annotations

from shrk_contract.terms import Pin, State
from shrk_node_agent.state.engines import HUNG, STEADY_SECONDS, EngineView
from shrk_node_agent.state.events import EngineBecameReady, EngineEnded, EngineProgressed
from shrk_node_agent.state.liveness import LAPSE_SECONDS, Want


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


def ready(now: float = 0.0) -> EngineView:
    engine = EngineView("e", "m")
    engine.started(now)
    engine.became_ready(EngineBecameReady(now, "e", Pin(), (), 4, 100))
    return engine


def hang(engine: EngineView, now: float) -> float:
    """Tick until it is being ended; when that was."""
    engine.attempt_began(now)
    while engine.tick(now) is not Want.RESTART:
        now += LAPSE_SECONDS
        assert now < 10_000
    return now


def test_an_engine_that_hangs_takes_nothing_from_then_on_and_is_started_again_once_it_has_ended() -> None:
    engine = ready()
    now = hang(engine, 0.0)
    assert (engine.state, engine.reason, engine.ending, engine.start_at) == (State.STARTING, HUNG, True, None)
    assert engine.tick(now + LAPSE_SECONDS) is None
    engine.ended(EngineEnded(now + 1, "e", "Stopped; processes [7] do not end", incompatible=False))
    assert engine.reason == f"{HUNG}. Stopped; processes [7] do not end"
    assert (engine.ending, engine.start_at) == (False, now + 2)


def test_an_engine_that_hangs_again_and_again_is_started_later_and_given_more_time() -> None:
    engine, now, patience, waits = ready(), 0.0, [], []
    for _ in range(4):
        ended = hang(engine, now)
        patience.append(ended - now)
        engine.attempt_ended()
        engine.ended(EngineEnded(ended, "e", "Stopped", incompatible=False))
        assert engine.start_at is not None
        waits.append(engine.start_at - ended)
        now = engine.start_at
        engine.started(now)
        engine.became_ready(EngineBecameReady(now, "e", Pin(), (), 4, 100))
    assert waits == [1, 2, 4, 8]
    assert patience == sorted(set(patience))


def test_a_hang_after_a_long_good_time_is_the_first() -> None:
    engine = ready()
    engine.failures = 7
    now = hang(engine, STEADY_SECONDS + 1)
    assert now - STEADY_SECONDS < 30
    assert engine.failures == 1


def test_its_lives_are_counted() -> None:
    engine = ready()
    assert engine.life == 1
    engine.ended(EngineEnded(4.0, "e", "killed", incompatible=False))
    assert engine.life == 1
    engine.started(5.0)
    assert engine.life == 2
