"""The arithmetic behind the bench's table."""

from __future__ import annotations

import math

import pytest

from bench.figures import Figure, cpu_ticks, figure, frames_per_message, gauges, percentile, resident_kb


def test_the_median_percentile_of_an_odd_number_is_the_middle_value() -> None:
    assert percentile([1, 5, 9], 0.5) == 5


def test_the_99th_percentile_is_a_value_that_was_seen_and_that_99_of_100_do_not_exceed() -> None:
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile(list(range(1, 1001)), 0.99) == 990


def test_one_value_is_every_percentile() -> None:
    assert [percentile([7], share) for share in (0.0, 0.5, 0.99, 1.0)] == [7, 7, 7, 7]


def test_nothing_measured_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_a_figure_is_the_median_of_the_runs_with_their_extremes() -> None:
    assert figure([3.0, 1.0, 10.0]) == Figure(median=3.0, low=1.0, high=10.0)


def test_cpu_ticks_are_found_behind_a_process_name_with_spaces_and_brackets() -> None:
    stat = "4711 (a (odd) name) S 1 4711 4711 0 -1 4194560 900 0 0 0 250 50 7 8 20 0 12 0 1000 1 2 3"
    assert cpu_ticks(stat) == 300


def test_memory_is_read_from_vmrss() -> None:
    assert resident_kb("Name:\tpython\nVmPeak:\t 999 kB\nVmRSS:\t   1234 kB\n") == 1234


def test_an_ended_process_has_no_memory_figure() -> None:
    with pytest.raises(ValueError, match="ended"):
        resident_kb("Name:\tpython\nState:\tZ (zombie)\n")


def test_gauges_are_the_samples_without_labels() -> None:
    text = '# HELP a_b What.\n# TYPE a_b gauge\na_b 12.5\nc_total{endpoint="/v1"} 3.0\nd 1e+06 1795171161\n'
    assert gauges(text) == {"a_b": 12.5, "d": 1e6}


def test_frames_per_message_counts_what_came_between_two_readings() -> None:
    before = {"shrk_link_frames_received": 100.0, "shrk_link_messages_received": 50.0}
    after = {"shrk_link_frames_received": 400.0, "shrk_link_messages_received": 75.0}
    assert frames_per_message(before, after) == 12.0


def test_frames_per_message_of_no_messages_is_no_number() -> None:
    reading = {"shrk_link_frames_received": 100.0, "shrk_link_messages_received": 50.0}
    assert math.isnan(frames_per_message(reading, reading))
