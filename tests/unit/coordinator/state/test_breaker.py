"""Who keeps failing is left alone for a while, then probed."""

from __future__ import annotations

import pytest

from shrk_coordinator.state.breaker import (
    FAILURES_MAX,
    OPEN_SECONDS,
    OPEN_SECONDS_MAX,
    PROBE_SECONDS_MAX,
    SICK_PROBES_MIN,
    Breaker,
)
from shrk_coordinator.state.lives import EngineLife


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


def fail(breaker: Breaker, now: float = 0.0) -> None:
    for _ in range(FAILURES_MAX):
        breaker.failed(now)


def test_it_opens_after_so_many_failures_in_a_row_and_a_token_ends_the_row(breaker: Breaker) -> None:
    for _ in range(5):
        for _ in range(FAILURES_MAX - 1):
            breaker.failed(0.0)
        breaker.spoke()
    assert breaker.allows(0.0)
    fail(breaker)
    assert not breaker.allows(OPEN_SECONDS - 0.1)
    assert breaker.allows(OPEN_SECONDS)


def test_one_stall_opens_it_and_says_so(breaker: Breaker) -> None:
    breaker.stall(0.0)
    assert breaker.stalled
    assert not breaker.allows(OPEN_SECONDS - 0.1)


def test_of_all_that_is_lost_with_one_engine_one_failure_counts(breaker: Breaker) -> None:
    for _ in range(10):
        breaker.failed(0.0, EngineLife(1, "m", 1))
    assert breaker.closed
    for life in (2, 3):
        breaker.failed(0.0, EngineLife(1, "m", life))
    assert not breaker.closed


def test_when_its_time_is_over_one_probe_at_a_time_is_let_through(breaker: Breaker) -> None:
    fail(breaker)
    breaker.began(OPEN_SECONDS)
    assert not breaker.allows(OPEN_SECONDS)
    breaker.gave_way(OPEN_SECONDS)
    assert breaker.allows(OPEN_SECONDS)
    breaker.began(OPEN_SECONDS)
    breaker.spoke()
    assert breaker.closed
    assert breaker.allows(OPEN_SECONDS)


def test_a_probe_that_shows_nothing_does_not_block_it_for_ever(breaker: Breaker) -> None:
    fail(breaker)
    breaker.began(OPEN_SECONDS)
    assert breaker.allows(OPEN_SECONDS + PROBE_SECONDS_MAX)


def test_every_failed_probe_opens_it_for_longer_up_to_a_bound(breaker: Breaker) -> None:
    fail(breaker)
    now, times = 0.0, []
    for _ in range(15):
        times.append(breaker.open_until - now)
        now = breaker.open_until
        breaker.began(now)
        breaker.failed(now)
    assert times[:3] == [OPEN_SECONDS, 2 * OPEN_SECONDS, 3 * OPEN_SECONDS]
    assert times[-1] == OPEN_SECONDS_MAX


def test_what_was_under_way_when_it_opened_and_fails_later_opens_it_no_longer(breaker: Breaker) -> None:
    fail(breaker)
    fail(breaker, now=5.0)
    assert breaker.open_until == OPEN_SECONDS


def test_a_new_life_is_probed_at_once(breaker: Breaker) -> None:
    fail(breaker)
    breaker.new_life(1.0)
    assert breaker.allows(1.0)
    breaker.began(1.0)
    assert not breaker.allows(1.0)


def test_what_is_sent_to_an_engine_that_is_said_to_be_lost_and_lives_fails_like_anything_else(breaker: Breaker) -> None:
    life = EngineLife(1, "m", 1)
    assert breaker.failed(1.0, life, begun_at=0.5)
    assert breaker.failed(1.1, life, begun_at=0.9), "it was under way when the engine was lost"
    assert breaker.closed
    for now in (2.0, 3.0):
        assert not breaker.failed(now, life, begun_at=now - 0.1)
    assert not breaker.closed


def test_who_keeps_failing_is_not_probed_for_being_started_anew(breaker: Breaker) -> None:
    fail(breaker)
    breaker.new_life(1.0)
    breaker.began(1.0)
    breaker.failed(1.0)
    breaker.new_life(2.0)
    assert not breaker.allows(2.0)


def test_what_was_sent_before_it_opened_is_no_failed_probe_however_late_it_fails(breaker: Breaker) -> None:
    fail(breaker, now=1.0)
    breaker.failed(OPEN_SECONDS + 1.5, begun_at=0.5)
    assert breaker.allows(OPEN_SECONDS + 1.5), "its time was over"
    assert breaker.began(OPEN_SECONDS + 2.0)
    breaker.failed(OPEN_SECONDS + 3.0, begun_at=0.5)
    breaker.stall(OPEN_SECONDS + 3.0, begun_at=0.5)
    assert (breaker.opened, breaker.probed_at) == (1, OPEN_SECONDS + 2.0), "its probe is still under way"
    breaker.failed(OPEN_SECONDS + 4.0, begun_at=OPEN_SECONDS + 2.0)
    assert (breaker.opened, breaker.open_until) == (2, OPEN_SECONDS + 4.0 + 2 * OPEN_SECONDS)


def test_a_probe_that_is_given_up_late_makes_no_room_beside_the_next_one(breaker: Breaker) -> None:
    fail(breaker)
    assert breaker.began(OPEN_SECONDS)
    second = OPEN_SECONDS + PROBE_SECONDS_MAX
    assert breaker.began(second)
    breaker.gave_way(OPEN_SECONDS)
    assert not breaker.allows(second + 1.0)
    breaker.gave_way(second)
    assert breaker.allows(second + 1.0)


@pytest.mark.parametrize("stalls", [False, True])
def test_after_two_failed_probes_it_is_sick_until_a_token_comes(breaker: Breaker, stalls: bool) -> None:
    def go_wrong(now: float) -> None:
        breaker.stall(now) if stalls else breaker.failed(now)

    for _ in range(FAILURES_MAX):
        go_wrong(0.0)
    for _ in range(SICK_PROBES_MIN):
        assert not breaker.sick
        breaker.began(breaker.open_until)
        go_wrong(breaker.open_until)
    assert breaker.sick
    breaker.new_life(1_000.0)
    assert breaker.sick, "it may crash at each request"
    breaker.spoke()
    assert not breaker.sick


def test_what_is_loaded_anew_is_not_sick_before_it_has_been_probed(breaker: Breaker) -> None:
    fail(breaker)
    for _ in range(SICK_PROBES_MIN):
        breaker.began(breaker.open_until)
        breaker.failed(breaker.open_until)
    breaker.unloaded()
    assert not breaker.sick
    assert not breaker.closed
    assert breaker.allows(0.0)
    breaker.spoke()
    breaker.unloaded()
    assert breaker.closed


def test_a_probe_that_is_lost_together_with_what_was_there_before_has_failed(breaker: Breaker) -> None:
    life = EngineLife(1, "m", 1)
    breaker.stall(10.0, begun_at=6.0)
    assert breaker.began(41.0)
    breaker.failed(45.0, life, begun_at=6.0)
    breaker.failed(45.0, life, begun_at=41.0)
    assert (breaker.opened, breaker.probed_at) == (2, None)


def test_a_new_life_is_not_kept_waiting_by_what_probed_the_last_one(breaker: Breaker) -> None:
    fail(breaker)
    assert breaker.began(OPEN_SECONDS)
    breaker.new_life(OPEN_SECONDS + 1.0)
    assert breaker.allows(OPEN_SECONDS + 1.0)
