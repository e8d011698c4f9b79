"""What is held against a slow node."""

from __future__ import annotations

from dataclasses import replace

from reliability.slow import Plan, Slowed, count, failed, rows
from reliability.traffic import Told


def _tolds(*firsts: float) -> tuple[Told, ...]:
    return tuple(Told(number, 0.0, 2.0, 200, "req_1", first_at=first) for number, first in enumerate(firsts))


GOOD = Slowed(
    healthy=_tolds(*[0.1] * 100),
    slow=_tolds(*[0.14] * 99, 5.0),
    moving=_tolds(0.1),
    requests=201,
    hedges=11,
    attempts=104,
    at_slow=4,
    losers=(0.01, 0.2),
)


def _failures(found: Slowed) -> list[int]:
    return [row.failures for row in rows(found)]


def test_all_is_well_where_nearly_all_first_tokens_are_quick() -> None:
    assert _failures(GOOD) == [0, 0, 0, 0]
    assert failed(GOOD, 1) == ()


def test_first_tokens_are_compared_with_those_of_healthy_nodes() -> None:
    assert _failures(replace(GOOD, slow=_tolds(*[0.14] * 98, 0.16, 0.16)))[1] == 2
    assert _failures(replace(GOOD, healthy=_tolds(*[0.2] * 100), slow=_tolds(*[0.14] * 98, 0.16, 0.16)))[1] == 0


def test_each_hedge_beyond_one_in_twenty_and_one_counts() -> None:
    assert _failures(replace(GOOD, hedges=13))[2] == 2


def test_a_loser_that_ends_late_or_never_counts() -> None:
    found = replace(GOOD, losers=(0.01, 0.21, None))
    assert _failures(found)[3] == 2
    assert len(failed(found, 1)) == 2


def test_an_answer_that_is_not_whole_counts_whenever_it_was_asked() -> None:
    broken = Told(0, 0.0, 1.0, 200, "req_9", "the stream ends in the middle of an event")
    assert _failures(replace(GOOD, moving=(broken,)))[0] == 1


def test_a_plan_knows_how_many_requests_it_is() -> None:
    assert count(Plan(requests=10, moves=2)) == 40 + 20 + 50
