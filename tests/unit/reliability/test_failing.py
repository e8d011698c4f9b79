"""What is held against nodes that answer errors."""

from __future__ import annotations

from reliability.failing import AllFail, OneFails, failed, rows
from reliability.results import Row
from reliability.traffic import Told


def _refused(number: int, seconds: float = 0.01, retry_after: str = "3") -> Told:
    return Told(number, 0.0, seconds, 503, "req_1", "status 503", "no_node_available", retry_after)


def _whole(number: int) -> Told:
    return Told(number, 0.0, 1.0, 200, "req_1")


def _all(tolds: list[Told], attempts: int = 0, back: tuple[float | None, ...] = (1.0, 2.0, 3.0)) -> AllFail:
    return AllFail(tuple(tolds), attempts, tuple(tolds), back)


def _one(tolds: list[Told], attempts: int = 100, at_failing: int = 0) -> OneFails:
    return OneFails(tuple(tolds), attempts, at_failing, at_failing + 3)


def _failures(everyone: AllFail, one: OneFails) -> list[int]:
    found: tuple[Row, ...] = rows(everyone, one)
    return [row.failures for row in found]


GOOD_ALL = _all([_refused(number) for number in range(10)], attempts=12)
GOOD_ONE = _one([_whole(number) for number in range(10)], at_failing=2)


def test_all_is_well_where_few_attempts_are_made_and_all_are_told() -> None:
    assert _failures(GOOD_ALL, GOOD_ONE) == [0] * 6
    assert failed(GOOD_ALL, GOOD_ONE, 1) == ()


def test_each_attempt_beyond_the_budget_counts() -> None:
    assert _failures(_all(list(GOOD_ALL.tolds), attempts=14), GOOD_ONE)[0] == 2


def test_a_refusal_without_a_time_is_none() -> None:
    found = _all([*GOOD_ALL.tolds, _refused(10, retry_after="")])
    assert _failures(found, GOOD_ONE)[1] == 1
    assert len(failed(found, GOOD_ONE, 1)) == 1


def test_where_breakers_never_opened_nothing_was_shown() -> None:
    assert _failures(AllFail(GOOD_ALL.tolds, 12, (), (1.0, 1.0, 1.0)), GOOD_ONE)[1] == 1


def test_late_refusals_and_a_node_that_is_not_found_again_count() -> None:
    found = _all([*GOOD_ALL.tolds, _refused(10, seconds=0.06), _refused(11, seconds=0.07)], back=(1.0, None, 2.0))
    assert _failures(found, GOOD_ONE)[2:4] == [2, 1]


def test_a_caller_that_saw_the_error_counts() -> None:
    found = _one([*GOOD_ONE.tolds, Told(10, 0.0, 1.0, 500, "req_2", "status 500")])
    assert _failures(GOOD_ALL, found)[4] == 1
    assert "req_2" in failed(GOOD_ALL, found, 1)[0]


def test_a_node_that_fails_and_draws_more_than_its_share_is_told_by_all_of_it() -> None:
    assert _failures(GOOD_ALL, _one(list(GOOD_ONE.tolds), at_failing=3))[5] == 3
