"""What is held against an overload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reliability.overload import MEMORY_BYTES_MAX, Memory, Overload, Plan, back_seconds, count, failed, has_waited, rows
from reliability.traffic import Told


def _whole(asked_at: float, first_seconds: float = 0.1) -> Told:
    return Told(0, asked_at, asked_at + 0.3, 200, "req_1", first_at=asked_at + first_seconds)


def _refused(seconds: float, status: int = 503) -> Told:
    return Told(0, 0.0, seconds, status, "req_2", f"status {status}", "no_node_available", "2")


GOOD = Overload(
    plan=Plan(5.0, 10.0),
    peak=20.0,
    goodput=18.0,
    tolds=(*[_whole(1.0)] * 180, *[_refused(0.01)] * 100, _refused(10.1), _refused(0.01, 429)),
    before=(_whole(0.0),) * 10,
    after=tuple(_whole(100.0 + number) for number in range(10)),
    ended_at=100.0,
    memory=Memory(2**20, 2**20 + MEMORY_BYTES_MAX, 2**20),
)


def _failures(found: Overload) -> list[int]:
    return [row.failures for row in rows(found)]


def test_all_is_well_where_the_room_is_used_and_the_rest_hear_at_once() -> None:
    assert _failures(GOOD) == [0] * 6
    assert failed(GOOD, 1) == ()


def test_answers_that_are_missing_at_nine_tenths_of_the_peak_are_counted() -> None:
    assert _failures(replace(GOOD, goodput=17.5))[0] == 5


@pytest.mark.parametrize(("seconds", "waited"), [(0.01, False), (8.0, False), (10.2, True)])
def test_only_who_had_its_ten_seconds_has_waited(seconds: float, waited: bool) -> None:
    assert has_waited(_refused(seconds)) is waited


def test_a_refusal_that_is_neither_at_once_nor_after_waiting_is_late() -> None:
    assert _failures(replace(GOOD, tolds=(*GOOD.tolds, *[_refused(3.0)] * 2)))[2] == 2


def test_any_other_word_is_a_failure() -> None:
    found = replace(GOOD, tolds=(*GOOD.tolds, Told(5, 0.0, 1.0, 500, "req_5", "status 500")))
    assert _failures(found)[3] == 1
    assert "req_5" in failed(found, 1)[0]


def test_memory_has_a_bound() -> None:
    assert _failures(replace(GOOD, memory=Memory(0, MEMORY_BYTES_MAX + 1, 0)))[4] == 1


def test_only_what_is_slow_after_five_seconds_counts() -> None:
    slow_for_a_while = tuple(_whole(100.0 + number, 0.5 if number < 5 else 0.1) for number in range(10))
    assert _failures(replace(GOOD, after=slow_for_a_while))[5] == 0
    assert back_seconds(replace(GOOD, after=slow_for_a_while), 0.15) == 5.0
    slow_again = (*slow_for_a_while, _whole(111.0, 0.5))
    assert _failures(replace(GOOD, after=slow_again))[5] == 1
    assert back_seconds(replace(GOOD, after=slow_again), 0.15) is None


def test_an_overload_is_ten_times_the_peak() -> None:
    assert count(Plan(1.0, 60.0), 20.0) == 12_000
