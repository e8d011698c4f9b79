"""The stall clock: how long a stream may say nothing before it counts as stalled."""

from __future__ import annotations

import itertools
import random

import pytest

from shrk_coordinator.state.stall import (
    GAPS_MAX,
    MODELS_MAX,
    REPEAT_SECONDS,
    STALL_SECONDS_MAX,
    STALL_SECONDS_MIN,
    Paces,
    StallClock,
)


def a_clock(gap: float, tokens: int = 200) -> tuple[StallClock, float]:
    """A clock of a stream with a steady pace, and when its last token came."""
    clock = StallClock()
    for number in range(tokens):
        clock.token(number * gap)
    return clock, (tokens - 1) * gap


def test_nothing_is_waited_for_before_the_first_token() -> None:
    clock = StallClock()
    assert not clock.stalled(1_000_000.0)
    clock.rest(1_000_000.0)
    assert not clock.stalled(2_000_000.0)


def test_a_quick_stream_has_two_seconds() -> None:
    clock, last = a_clock(gap=0.01)
    assert clock.limit == STALL_SECONDS_MIN
    assert not clock.stalled(last + STALL_SECONDS_MIN)
    assert clock.stalled(last + STALL_SECONDS_MIN + 0.001)


def test_a_stream_of_which_nothing_is_known_yet_has_ten_seconds() -> None:
    clock = StallClock()
    clock.token(0.0)
    assert not clock.stalled(STALL_SECONDS_MAX)
    assert clock.stalled(STALL_SECONDS_MAX + 0.001)


def test_a_slow_stream_does_not_stall_at_its_second_token() -> None:
    clock = StallClock()
    clock.token(0.0)
    clock.token(3.0)
    assert not clock.stalled(6.0)


def test_a_new_stream_is_expected_to_be_as_fast_as_others_of_its_model() -> None:
    paces = Paces()
    assert paces.of("m") is None
    paces.learn("m", StallClock())
    assert paces.of("m") is None, "a stream of one token says nothing"
    paces.learn("m", a_clock(gap=0.1)[0])
    assert paces.of("m") == pytest.approx(0.1)
    clock = StallClock(paces.of("m"))
    clock.token(0.0)
    assert clock.stalled(STALL_SECONDS_MIN + 0.001)
    for _ in range(100):
        paces.learn("m", a_clock(gap=1.0)[0])
    assert paces.of("m") == pytest.approx(1.0, rel=0.01)


def test_one_quick_gap_does_not_make_a_slow_stream_a_quick_one() -> None:
    clock = StallClock()
    for now in (0.0, 0.001, 2.0, 4.0, 6.0):
        clock.token(now)
    assert clock.limit == STALL_SECONDS_MAX


def test_the_models_remembered_are_bounded() -> None:
    paces, clock = Paces(), a_clock(gap=0.1)[0]
    for number in range(MODELS_MAX + 1):
        paces.learn(str(number), clock)
    assert paces.of("0") is None
    assert paces.of(str(MODELS_MAX)) is not None


def test_a_slow_stream_has_eight_of_its_own_gaps() -> None:
    clock, last = a_clock(gap=0.5)
    assert clock.limit == pytest.approx(GAPS_MAX * 0.5)
    assert not clock.stalled(last + GAPS_MAX * 0.5 - 0.01)
    assert clock.stalled(last + GAPS_MAX * 0.5 + 0.01)


def test_no_stream_has_more_than_ten_seconds() -> None:
    clock, last = a_clock(gap=1.9)
    assert clock.limit == STALL_SECONDS_MAX
    assert not clock.stalled(last + STALL_SECONDS_MAX)
    assert clock.stalled(last + STALL_SECONDS_MAX + 0.001)


def test_the_pace_follows_the_newest_dozen_tokens() -> None:
    clock, last = a_clock(gap=0.5)
    for number in range(1, 13):
        clock.token(last + number)
    # After as many tokens as WEIGHT weighs, most of the mean is theirs.
    assert GAPS_MAX * 0.75 < clock.limit < GAPS_MAX


def test_a_stall_that_nobody_could_help_is_told_again_each_second() -> None:
    clock, last = a_clock(gap=0.01)
    told = [now for step in range(1, 60) if clock.stalled(now := last + step * 0.25)]
    assert told[0] == pytest.approx(last + STALL_SECONDS_MIN + 0.25)
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert gaps
    assert all(REPEAT_SECONDS < gap <= REPEAT_SECONDS + 0.25 for gap in gaps)


def test_a_token_after_a_stall_begins_the_wait_anew() -> None:
    clock, last = a_clock(gap=0.01)
    assert clock.stalled(last + 3.0)
    clock.token(last + 3.5)
    assert not clock.stalled(last + 3.5 + STALL_SECONDS_MIN)
    assert clock.stalled(last + 3.5 + clock.limit + 0.01)


def test_time_in_which_the_node_may_not_send_does_not_count() -> None:
    clock, last = a_clock(gap=0.01)
    clock.rest(last + 100.0)
    assert not clock.stalled(last + 100.0 + STALL_SECONDS_MIN)
    assert clock.stalled(last + 100.0 + STALL_SECONDS_MIN + 0.001)
    clock.rest(last + 200.0)
    clock.token(last + 200.01)
    # Nor is it taken for the stream's own pace.
    assert clock.limit == STALL_SECONDS_MIN


def test_after_its_last_token_a_stream_does_not_stall_and_the_next_attempt_begins_with_its_first() -> None:
    clock, last = a_clock(gap=0.01)
    clock.stop()
    assert not clock.stalled(last + 1000.0)
    clock.token(last + 1000.0)
    # The prompt that was read meanwhile is no gap between tokens.
    assert clock.limit == STALL_SECONDS_MIN
    assert clock.stalled(last + 1000.0 + STALL_SECONDS_MIN + 0.001)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_its_pace_a_stream_has_between_two_and_ten_seconds(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    clock, now = StallClock(), 0.0
    for _ in range(300):
        now += rng.expovariate(rng.choice((0.1, 1.0, 100.0)))
        rng.choice((clock.token, clock.token, clock.rest))(now)
        assert STALL_SECONDS_MIN <= clock.limit <= STALL_SECONDS_MAX
        assert not clock.stalled(now + STALL_SECONDS_MIN - 0.001)
