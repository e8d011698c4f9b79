"""How a storm is judged: who was back, how late the ticks were, and who counts as having asked meanwhile."""

from __future__ import annotations

import pytest

from reliability.storm import LAG_SECONDS_MAX, Asked, Storm, failed, lag_counts, rows

_EXPOSITION = """\
# HELP shrk_loop_lag_seconds How late
# TYPE shrk_loop_lag_seconds histogram
shrk_loop_lag_seconds_bucket{le="0.05"} 3.0
shrk_loop_lag_seconds_bucket{le="0.1"} 4.0
shrk_loop_lag_seconds_bucket{le="+Inf"} 6.0
shrk_loop_lag_seconds_count 6.0
shrk_links_open 2.0
"""


def _storm(
    back: tuple[float, ...] = (2.0, 3.0), all_back: float | None = 4.0, late: int = 0, asked: tuple[Asked, ...] = ()
) -> Storm:
    lag = {LAG_SECONDS_MAX: 100 - late, float("inf"): 100}
    return Storm(2, 1.0, list(back), all_back, 5, ("the coordinator is busy",), lag, list(asked))


def test_ticks_are_read_from_the_metrics() -> None:
    assert lag_counts(_EXPOSITION) == {0.05: 3, 0.1: 4, float("inf"): 6}


def test_who_is_not_back_in_time_is_a_failure() -> None:
    [back, *_] = rows([_storm(), _storm(back=(2.0,), all_back=None)])
    assert (back.n, back.failures) == (4, 1)
    assert "5 dials failed, 1 were refused" in back.seen
    assert failed([_storm(back=(2.0,), all_back=None)]) == (
        "only 1 of 2 agents came back  [python -m reliability --only storm]",
    )


def test_one_that_was_welcomed_and_never_reported_is_a_failure_too() -> None:
    [back, *_] = rows([_storm(all_back=None)])
    assert back.failures == 1


@pytest.mark.parametrize(("late", "failures"), [(0, 0), (1, 0), (2, 2)])
def test_one_tick_in_a_hundred_may_be_late(late: int, failures: int) -> None:
    _, lag, _ = rows([_storm(late=late)])
    assert (lag.n, lag.failures) == (100, failures)


def test_a_caller_is_owed_an_answer_from_when_agents_serve_until_all_do() -> None:
    asked = tuple(Asked(at, 0.01, "" if at == 3.5 else "status 503") for at in (0.5, 2.5, 3.5, 3.9, 9.0))
    *_, meanwhile = rows([_storm(asked=asked)])
    assert (meanwhile.n, meanwhile.failures) == (2, 1)
    assert failed([_storm(asked=asked)]) == ("a caller was told status 503  [python -m reliability --only storm]",)


def test_where_nobody_asked_nothing_was_tried() -> None:
    *_, meanwhile = rows([_storm()])
    assert (meanwhile.n, meanwhile.failures, meanwhile.seen) == (0, 0, "nobody asked")
