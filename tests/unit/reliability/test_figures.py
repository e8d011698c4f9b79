"""The arithmetic behind the page."""

from __future__ import annotations

import pytest

from reliability.figures import Gaps, bound, percentile


def test_three_in_n_is_what_no_failure_proves() -> None:
    assert bound(300, 0) == pytest.approx(0.01)
    assert bound(3_000, 0) == pytest.approx(0.001)


def test_fewer_than_three_tries_prove_nothing() -> None:
    assert bound(2, 0) == 1.0


def test_no_bound_stands_where_something_failed_or_nothing_was_tried() -> None:
    assert bound(300, 1) is None
    assert bound(0, 0) is None


def test_the_99th_percentile_is_a_value_that_was_seen_and_that_99_of_100_do_not_exceed() -> None:
    assert percentile([float(value) for value in range(1, 1001)], 0.99) == 990


def test_gaps_are_told_in_milliseconds_whatever_their_order() -> None:
    assert Gaps.of([0.3, 0.1, 0.2]) == Gaps(3, pytest.approx(200), pytest.approx(300))


def test_where_there_was_no_gap_there_is_no_figure() -> None:
    assert Gaps.of([]) is None
