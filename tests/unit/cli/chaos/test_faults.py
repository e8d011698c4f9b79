"""Settings of a line: out of range they are refused, with the field's name and what it may be."""

from __future__ import annotations

from typing import Any

import pytest

from shrk_cli.chaos.faults import (
    CHUNK_BYTES_MAX,
    COUNT_BYTES_MAX,
    DELAY_MS_MAX,
    RATE_BYTES_PER_SECOND_MAX,
    RATE_BYTES_PER_SECOND_MIN,
    Cut,
    Direction,
    FaultRefused,
    Flow,
    LineFaults,
    choice,
)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("delay_ms", -1, "0 to 60,000"),
        ("delay_ms", DELAY_MS_MAX + 1, "0 to 60,000"),
        ("delay_ms", float("nan"), "a number"),
        ("delay_ms", True, "a number"),
        ("delay_ms", "300", "a number"),
        ("delay_ms", None, "a number"),
        ("jitter_ms", -0.5, "0 to 60,000"),
        ("jitter_ms", float("inf"), "0 to 60,000"),
        ("rate_bytes_per_second", RATE_BYTES_PER_SECOND_MIN - 1, "100 to 1,250,000,000"),
        ("rate_bytes_per_second", RATE_BYTES_PER_SECOND_MAX + 1, "100 to 1,250,000,000"),
        ("rate_bytes_per_second", 1000.5, "a whole number"),
        ("truncate_after_bytes", -1, "0 to"),
        ("truncate_after_bytes", COUNT_BYTES_MAX + 1, "0 to"),
        ("truncate_after_bytes", False, "a whole number"),
        ("flow", "sideways", "pass, freeze, black-hole"),
        ("flow", None, "pass, freeze, black-hole"),
        ("colour", "red", "delay_ms, jitter_ms"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name_and_its_range(field: str, value: object, remedy: str) -> None:
    with pytest.raises(FaultRefused) as refused:
        LineFaults().changed({field: value})
    assert refused.value.field == field
    assert field in refused.value.what
    assert remedy in refused.value.remedy
    assert str(refused.value) == f"{refused.value.what}; {refused.value.remedy}"


@pytest.mark.parametrize(
    "changes",
    [
        {"delay_ms": 0, "jitter_ms": 0},
        {"delay_ms": DELAY_MS_MAX, "jitter_ms": 0.5},
        {"rate_bytes_per_second": RATE_BYTES_PER_SECOND_MIN},
        {"rate_bytes_per_second": RATE_BYTES_PER_SECOND_MAX},
        {"truncate_after_bytes": 0},
        {"truncate_after_bytes": COUNT_BYTES_MAX},
        {"rate_bytes_per_second": None, "truncate_after_bytes": None},
    ],
)
def test_the_ends_of_each_range_are_taken(changes: dict[str, Any]) -> None:
    assert LineFaults().changed(changes) == LineFaults(**changes)


def test_a_change_keeps_what_it_does_not_name() -> None:
    before = LineFaults(delay_ms=5, truncate_after_bytes=9)
    assert before.changed({"flow": "freeze"}) == LineFaults(delay_ms=5, truncate_after_bytes=9, flow=Flow.FREEZE)
    assert before == LineFaults(delay_ms=5, truncate_after_bytes=9)


def test_delay_grows_by_a_share_of_the_jitter() -> None:
    faults = LineFaults(delay_ms=50, jitter_ms=20)
    assert [faults.delay_seconds(fraction) for fraction in (0.0, 0.5)] == pytest.approx([0.05, 0.06])
    assert LineFaults().delay_seconds(0.9) == 0


def test_bytes_keep_a_line_busy_for_as_long_as_its_rate_says() -> None:
    assert LineFaults(rate_bytes_per_second=125_000).wire_seconds(250_000) == 2.0
    assert LineFaults().wire_seconds(250_000) == 0


@pytest.mark.parametrize(
    ("rate", "count"),
    [(None, CHUNK_BYTES_MAX), (100, 2), (125_000, 2500), (RATE_BYTES_PER_SECOND_MAX, CHUNK_BYTES_MAX)],
)
def test_a_slow_line_is_read_in_small_steps(rate: int | None, count: int) -> None:
    assert LineFaults(rate_bytes_per_second=rate).read_bytes_max == count


def test_a_choice_is_read_by_its_word_and_refused_with_all_words() -> None:
    assert choice(Cut, "how", "half-open") is Cut.HALF_OPEN
    with pytest.raises(FaultRefused, match="'sideways'; it must be one of up, down, both"):
        choice(Direction, "direction", "sideways")
