"""What a request may be expected to take."""

from __future__ import annotations

import pytest

from shrk_coordinator.state.speed import (
    FIRST_TOKENS_MIN,
    FIRST_TOKENS_STEP,
    HALF_LIFE_SECONDS,
    TOKENS,
    FirstTokens,
    Speed,
    Usual,
)

USUAL = Usual(0.5, 0.02)
#: What an answer usually takes.
SECONDS = 0.5 + TOKENS * 0.02


def a_speed(first: float, token: float, usual: Usual = USUAL) -> Speed:
    speed = Speed()
    speed.first_token(0.0, first, usual)
    speed.pace(0.0, token, usual)
    return speed


def test_first_token_and_pace_count_together() -> None:
    assert a_speed(1.0, 0.02).expected(0.0, USUAL) == pytest.approx(1.0 + TOKENS * 0.02)
    assert a_speed(0.5, 0.03).expected(0.0, USUAL) == pytest.approx(0.5 + TOKENS * 0.03)


def test_one_of_which_nothing_is_known_is_taken_for_a_usual_one() -> None:
    assert Speed().expected(0.0, USUAL) == SECONDS
    assert Speed().expected(0.0, Usual()) == a_speed(9.0, 9.0, Usual()).expected(0.0, Usual()), "all are equal at first"


def test_a_slow_one_is_known_by_its_first_answer() -> None:
    assert a_speed(5.0, 0.2).expected(0.0, USUAL) == pytest.approx(10 * SECONDS)


def test_what_was_learnt_long_ago_counts_less() -> None:
    slow = a_speed(5.0, 0.2)
    assert slow.expected(HALF_LIFE_SECONDS, USUAL) == pytest.approx((SECONDS + 10 * SECONDS) / 2)
    assert slow.expected(20 * HALF_LIFE_SECONDS, USUAL) == pytest.approx(SECONDS, rel=0.01)


def test_failing_at_once_is_slower_than_any_answer_and_is_forgiven_answer_by_answer() -> None:
    for usual in (USUAL, Usual(), Usual(token=0.02)):
        fails = Speed()
        fails.failed(0.0)
        assert fails.expected(0.0, usual) > 8 * Speed().expected(0.0, usual)
        for _ in range(20):
            fails.answered()
        assert fails.expected(0.0, usual) < 1.1 * Speed().expected(0.0, usual)


def test_one_failure_is_forgotten_within_a_minute_and_answers_do_not_remind_of_it() -> None:
    for usual in (USUAL, Usual()):
        failed = Speed()
        failed.failed(0.0)
        if usual.first:
            failed.first_token(59.0, usual.first, usual)
        assert failed.expected(60.0, usual) < 1.2 * Speed().expected(60.0, usual)


def test_whoever_fails_every_other_time_stays_slow() -> None:
    fails = Speed()
    for now in range(0, 100, 10):
        fails.failed(float(now))
        fails.first_token(now + 5.0, 0.5, USUAL)
    assert fails.expected(100.0, USUAL) > 3 * SECONDS


def test_a_crowd_that_slowed_everybody_leaves_nobody_slower_than_the_others() -> None:
    usual, one, other = Usual(), Speed(), Speed()

    def answer(speed: Speed, first: float) -> None:
        speed.first_token(0.0, first, usual)
        usual.first_token(first)

    for seconds in (0.01, 0.01, 0.3, 0.5, 0.4, 0.3, 0.5, 0.4, 0.3):
        answer(one, seconds)
        answer(other, seconds)
    # The crowd is gone, and chance asks only one of them.
    for _ in range(50):
        answer(one, 0.01)
    assert other.expected(0.0, usual) < 3 * one.expected(0.0, usual)


def test_one_that_becomes_slow_is_known_at_once_though_only_it_is_asked() -> None:
    usual = Usual(0.1, 0.01)
    slow = a_speed(0.1, 0.01, usual)
    for _ in range(3):
        slow.first_token(0.0, 1.0, usual)
        usual.first_token(1.0)
    assert slow.expected(0.0, usual) > 1.5 * Speed().expected(0.0, usual)


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
    for loser in (a_speed(0.5, 0.02), Speed()):
        loser.outrun(0.0, 0.25, USUAL)
        assert loser.expected(0.0, USUAL) == pytest.approx(SECONDS), "it is no proof of speed"
        loser.outrun(0.0, 1.5, USUAL)
        assert loser.expected(0.0, USUAL) == pytest.approx(3 * SECONDS)


def test_how_long_its_first_tokens_take_is_told_in_seconds() -> None:
    assert Speed().first_token_seconds(USUAL) is None
    assert a_speed(1.0, 0.02).first_token_seconds(USUAL) == pytest.approx(1.0)
