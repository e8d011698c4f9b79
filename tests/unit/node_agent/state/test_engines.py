"""An engine's life as the agent sees it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shrk_contract.terms import Pin, State
from shrk_node_agent.state.backoff import BARREN_STARTS_MAX
from shrk_node_agent.state.engines import HUNG, STEADY_SECONDS, EngineView
from shrk_node_agent.state.events import EngineBecameReady, EngineEnded, EngineProgressed
from shrk_node_agent.state.liveness import LAPSE_SECONDS, Want
from shrk_node_agent.state.seats import ANYWHERE


def test_an_engine_goes_from_starting_over_loading_to_online_and_back() -> None:
    engine = EngineView("e", "m")
    engine.started(1.0, ANYWHERE)
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
    engine.started(1.0, ANYWHERE)
    for now, detail in ((2.0, "loading"), (9.0, "warming up")):
        engine.progressed(EngineProgressed(now, "e", detail, None))
    assert engine.since == 1.0


def test_load_is_in_flight_attempts_per_slot() -> None:
    engine = EngineView("e", "m", slots=4, in_flight=2)
    assert engine.load == 0.5


def ready(now: float = 0.0) -> EngineView:
    engine = EngineView("e", "m")
    engine.started(now, ANYWHERE)
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
        engine.started(now, ANYWHERE)
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
    engine.started(5.0, ANYWHERE)
    assert engine.life == 2


def downloading(engine: EngineView, now: float) -> None:
    engine.progressed(EngineProgressed(now, "e", "downloading: 1.0 GB of 2.0 GB", 0.5, downloading=True))


def test_a_model_that_is_on_its_way_is_downloading_and_then_loading() -> None:
    engine = EngineView("e", "m")
    engine.started(1.0, ANYWHERE)
    downloading(engine, 2.0)
    assert (engine.state, engine.progress, engine.since) == (State.DOWNLOADING, 0.5, 1.0)
    engine.progressed(EngineProgressed(3.0, "e", "loading weights", None))
    assert engine.state is State.LOADING
    downloading(engine, 4.0)
    assert engine.state is State.LOADING, "an engine that loads has its model"


def test_a_network_that_is_away_is_tried_for_ever_and_the_engine_then_has_all_its_starts() -> None:
    engine = EngineView("e", "m")
    for _ in range(50):
        assert engine.start_at is not None
        engine.started(engine.start_at, ANYWHERE)
        engine.ended(EngineEnded(engine.since, "e", "no network", incompatible=False, fetching=True))
    assert (engine.state, engine.reason, engine.start_at) == (State.STARTING, "no network", engine.since + 60.0)
    engine.started(engine.start_at, ANYWHERE)
    downloading(engine, engine.since)
    engine.progressed(EngineProgressed(engine.since, "e", "loading", None))
    engine.ended(EngineEnded(engine.since, "e", "killed", incompatible=False))
    assert engine.start_at == engine.since + 1.0


def barren(engine: EngineView, times: int) -> None:
    for _ in range(times):
        assert engine.start_at is not None
        engine.started(engine.start_at, ANYWHERE)
        engine.ended(EngineEnded(engine.since, "e", "out of memory", incompatible=False))


def test_an_engine_that_comes_to_no_token_is_left_alone_with_the_last_error_and_the_command_to_try_again() -> None:
    engine = EngineView("e", "m")
    barren(engine, BARREN_STARTS_MAX)
    assert (engine.state, engine.start_at) == (State.INCOMPATIBLE, None)
    assert engine.reason == (
        "It came to no token 5 times in a row and is left alone. The last time: out of memory. "
        "Try again with `shrk resume`"
    )
    assert engine.retry(100.0)
    assert (engine.state, engine.start_at, engine.since, engine.reason) == (State.STARTING, 100.0, 100.0, "")
    barren(engine, BARREN_STARTS_MAX - 1)
    assert engine.state is State.STARTING


def test_an_owner_who_asks_does_not_wait_for_the_pause_and_disturbs_nothing_that_runs() -> None:
    engine = EngineView("e", "m")
    assert not engine.retry(0.0), "it is due in any case"
    barren(engine, 3)
    now = engine.since + 1.0
    assert engine.retry(now)
    assert engine.start_at == now
    engine.started(now, ANYWHERE)
    assert not engine.retry(now)
    engine.became_ready(EngineBecameReady(now, "e", Pin(), (), 4, 100))
    assert not engine.retry(now)
    assert engine.state is State.ONLINE


def test_one_that_is_not_wanted_here_is_not_started_because_it_was_asked_for_again() -> None:
    engine = EngineView("e", "m")
    barren(engine, BARREN_STARTS_MAX)
    engine.unwant(100.0, "not assigned")
    assert engine.retry(101.0)
    assert (engine.state, engine.reason, engine.start_at) == (State.PAUSED, "not assigned", None)


def test_an_engine_that_is_unloaded_before_its_first_token_has_not_failed() -> None:
    engine = EngineView("e", "m")
    for now in range(0, 100, 10):
        engine.want(now)
        engine.started(now, ANYWHERE)
        engine.unwant(now + 1.0, "not assigned")
        assert engine.unloads(now + 1.0)
        engine.ended(EngineEnded(now + 2.0, "e", "Stopped", incompatible=False))
    assert (engine.state, engine.barren_starts) == (State.PAUSED, 0)


#: How one life went: no token; a token and then an end; its model did not come; or its owner asked meanwhile.
LIVES = st.sampled_from(["barren", "bore", "fetching", "asked"])


def left_alone(lives: list[str]) -> bool:
    """The oracle: looks at the whole history anew."""
    alone, count = False, 0
    for life in lives:
        if life == "asked":
            alone, count = False, 0
        elif not alone and life == "bore":
            count = 0
        elif not alone and life == "barren":
            count += 1
            alone = count == 5
    return alone


@given(lives=st.lists(LIVES, max_size=40), took=st.integers(0, 2 * int(STEADY_SECONDS)))
def test_whatever_its_lives_it_is_left_alone_after_five_without_a_token_and_else_started_within_a_minute(
    lives: list[str], took: int
) -> None:
    engine, now = EngineView("e", "m"), 0.0
    for number, life in enumerate(lives, start=1):
        if life == "asked":
            engine.retry(now)
        elif engine.start_at is not None:
            now = max(now, engine.start_at)
            engine.started(now, ANYWHERE)
            now += took
            if life == "bore":
                engine.became_ready(EngineBecameReady(now, "e", Pin(), (), 4, 100))
                now += took
            engine.ended(EngineEnded(now, "e", "gone", incompatible=False, fetching=life == "fetching"))
        assert (engine.state is State.INCOMPATIBLE) == left_alone(lives[:number])
        assert (engine.start_at is None) == left_alone(lives[:number])
        if engine.start_at is not None:
            assert engine.start_at - now <= 60.0
