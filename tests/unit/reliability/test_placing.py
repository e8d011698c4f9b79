"""How costs are compared, and what a request costs: counted in calls, so that no clock has a say."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from reliability.placing import EVENT_SECONDS_MAX, GROWTH_MAX, SIZES, Case, Cost, Life, failed, live, rows


def _calls(life: Life, seconds: int = 3) -> tuple[float, int]:
    """Calls of Python functions in a life with requests and ticks: for each request, and the most in one event."""
    counted = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        counted[-1] += event == "call"

    for number in range(40 * seconds):
        life.now += 1 / 40
        for work in (life.request, life.tick) if number % 10 == 0 else (life.request,):
            counted.append(0)
            sys.setprofile(count)
            work()
            sys.setprofile(None)
    return sum(counted) / (40 * seconds), max(counted)


@pytest.mark.parametrize("case", Case)
def test_no_request_costs_more_where_there_are_many_nodes(case: Case) -> None:
    (few, few_most), (many, most) = (_calls(Life(case, nodes, seed=1)) for nodes in (400, 4_000))
    assert many <= 1.5 * few
    # All that wait are looked at in one event.
    assert most <= 1.5 * few_most


def test_a_report_from_a_busy_network_is_no_reason_to_look_at_all_of_it() -> None:
    most = []
    for nodes in (400, 4_000):
        life = Life(Case.BUSY, nodes, seed=1)
        for _ in range(20):
            life.request()
        counted = [0]

        def count(frame: FrameType, event: str, argument: object, counted: list[int] = counted) -> None:
            counted[0] += event == "call"

        sys.setprofile(count)
        life.report(7)
        sys.setprofile(None)
        most.append(counted[0])
    assert most[0] == most[1]


def test_every_request_of_a_life_is_timed_and_so_is_what_happens_besides() -> None:
    cost = live(Case.FREE, 10, seed=1, seconds=1)
    assert (len(cost.requests), len(cost.others)) == (200, 6)
    assert 0 < cost.typical <= cost.worst
    assert cost.share > 0


def _costs(last: float) -> list[Cost]:
    return [
        Cost(case, nodes, [last if nodes == SIZES[-1] else 1e-5] * 10, [1e-5], seconds=1.0)
        for case in Case
        for nodes in SIZES
    ]


def test_what_grows_with_the_number_of_nodes_breaks_the_promise() -> None:
    assert [row.failures for row in rows(_costs(1e-5 * GROWTH_MAX * 0.9))] == [0] * len(Case)
    assert [row.failures for row in rows(_costs(1e-5 * GROWTH_MAX * 1.1))] == [1] * len(Case)
    assert failed(_costs(1e-5), seed=1) == ()


def test_an_event_that_holds_everything_up_breaks_it_too() -> None:
    [line, *_] = failed(_costs(EVENT_SECONDS_MAX * 2), seed=7)
    assert line.startswith(f"{Case.FREE}: ")
    assert line.endswith("[python -m reliability --only placing --seed 7]")
    assert [row.failures for row in rows(_costs(EVENT_SECONDS_MAX * 2))] == [2] * len(Case)
