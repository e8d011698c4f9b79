"""What a request may be expected to take."""

from __future__ import annotations

import pytest

from shrk_coordinator.state.speed import (
    FAILED_SECONDS,
    FIRST_TOKENS_MIN,
    FIRST_TOKENS_STEP,
    HALF_LIFE_SECONDS,
    TOKENS,
    FirstTokens,
    Speed,
)


def a_speed(first: float, token: float, now: float = 0.0) -> Speed:
    speed = Speed()
    speed.first_token(now, first)
    speed.pace(now, token)
    return speed


def test_first_token_and_pace_count_together() -> None:
    assert a_speed(0.5, 0.02).seconds == pytest.approx(0.5 + TOKENS * 0.02)


def test_one_of_which_nothing_is_known_is_taken_for_a_typical_one() -> None:
    typical = a_speed(0.5, 0.02)
    assert Speed().expected(0.0, typical) == typical.seconds
    assert Speed().expected(0.0, Speed()) == a_speed(9.0, 9.0).expected(0.0, Speed()), "all are equal at first"


def test_a_slow_one_is_known_by_its_first_answer() -> None:
    typical = a_speed(0.5, 0.02)
    assert a_speed(5.0, 0.2).expected(0.0, typical) == pytest.approx(25.0)


def test_what_was_learnt_long_ago_counts_less() -> None:
    typical, slow = a_speed(0.5, 0.02), a_speed(5.0, 0.2)
    usual = typical.seconds
    assert usual is not None
    assert slow.expected(HALF_LIFE_SECONDS, typical) == pytest.approx((usual + 25.0) / 2)
    assert slow.expected(20 * HALF_LIFE_SECONDS, typical) == pytest.approx(usual, rel=0.01)


def test_failing_at_once_is_slower_than_any_answer() -> None:
    typical = a_speed(0.1, 0.02)
    fails = Speed()
    fails.failed(0.0)
    assert fails.expected(0.0, typical) > FAILED_SECONDS


def test_the_usual_wait_is_unknown_until_enough_have_waited() -> None:
    waits = FirstTokens()
    for number in range(FIRST_TOKENS_MIN - 1):
        waits.add(float(number))
    assert waits.late is None
    waits.add(100.0)
    assert waits.late == 100.0


def test_one_in_twenty_is_late_where_they_differ_much() -> None:
    waits = FirstTokens()
    for number in range(200):
        waits.add(float(number % 100))
    for _ in range(FIRST_TOKENS_STEP):
        waits.add(50.0)
    assert waits.late is not None
    assert 93.0 <= waits.late <= 96.0


def test_where_all_are_much_alike_the_slowest_are_not_late() -> None:
    waits = FirstTokens()
    for number in range(200):
        waits.add(1.0 + number % 20 / 100)
    assert waits.late is not None
    assert waits.late > 1.2


def test_one_that_lost_a_race_is_taken_to_be_as_much_slower_in_all() -> None:
    typical, loser = a_speed(0.1, 0.01), a_speed(0.1, 0.01)
    loser.outrun(0.0, 0.3, typical)
    assert loser.expected(0.0, typical) == pytest.approx(0.3 + TOKENS * 0.03)
    loser.outrun(0.0, 0.05, typical)
    assert loser.expected(0.0, typical) == pytest.approx(0.3 + TOKENS * 0.03), "it is no proof of speed"
