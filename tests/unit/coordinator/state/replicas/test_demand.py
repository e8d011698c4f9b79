"""How many replicas demand asks for."""

from __future__ import annotations

from shrk_coordinator.state.replicas.demand import CALM_SECONDS, IDLE_SECONDS, REPLICAS_WANTED, Appetite
from shrk_coordinator.state.replicas.facts import ModelFacts

LOAD = 100.0


def facts(asked_at: float = 0.0, under_way: int = 0, waiting: int = 0) -> ModelFacts:
    return ModelFacts("m", asked_at, under_way, waiting, load_seconds=LOAD)


def test_a_queue_asks_for_more_and_waits_for_who_was_asked() -> None:
    appetite = Appetite()
    appetite.look(1_000.0, facts(1_000.0, 12, 6), 3, 3)
    assert appetite.target == REPLICAS_WANTED + 1
    appetite.look(1_000.0 + 2 * LOAD, facts(1_000.0, 12, 60), 3, 4)
    assert appetite.target == REPLICAS_WANTED + 1
    appetite.look(1_000.0 + 3 * LOAD, facts(1_000.0, 12, 60), 4, 4)
    assert appetite.target == REPLICAS_WANTED + 2


def test_calm_takes_back_one_at_a_time() -> None:
    appetite = Appetite(extra=2)
    seen = []
    for step in range(4):
        now = 1_000.0 + step * CALM_SECONDS
        appetite.look(now, facts(asked_at=now), 5, 5)
        seen.append(appetite.target)
    assert seen == [5, 4, 3, 3]


def test_nobody_for_an_hour_is_idle_and_a_request_under_way_is_not() -> None:
    appetite = Appetite()
    appetite.look(IDLE_SECONDS - 1, facts(), 3, 3)
    assert not appetite.idle
    appetite.look(IDLE_SECONDS, facts(under_way=1), 3, 3)
    assert not appetite.idle
    appetite.look(IDLE_SECONDS, facts(), 3, 3)
    assert appetite.idle


def test_a_model_that_was_unloaded_wakes_with_one_and_is_not_held_up_by_a_load_that_hangs() -> None:
    appetite = Appetite(idle=True)
    appetite.look(5_000.0, facts(5_000.0, waiting=1), 0, 0)
    assert appetite.target == 1
    appetite.look(5_000.0 + 2 * LOAD, facts(5_000.0, waiting=1), 0, 1)
    assert appetite.target == REPLICAS_WANTED


def test_a_model_that_was_idle_and_still_loaded_has_nothing_to_wake_from() -> None:
    appetite = Appetite(idle=True)
    appetite.look(5_000.0, facts(5_000.0), 2, 2)
    assert appetite.target == REPLICAS_WANTED
