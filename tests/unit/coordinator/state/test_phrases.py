"""Figures in words."""

from __future__ import annotations

import pytest

from shrk_coordinator.state.phrases import GB, counted, gigabytes, lasting, named


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1.0, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7_199.0, "119 min"), (7_200.0, "2 h"), (200_000.0, "2 d")],
)
def test_a_time_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_a_size_is_told_in_gigabytes_without_needless_digits() -> None:
    assert [gigabytes(size) for size in (16 * GB, 7 * GB + GB // 2, -GB)] == ["16 GB", "7.5 GB", "0 GB"]


def test_one_is_not_told_as_many() -> None:
    assert [counted(count, "node") for count in (0, 1, 2)] == ["no node", "1 node", "2 nodes"]


def test_of_a_long_list_a_few_are_named() -> None:
    assert named(["a", "b", "c"]) == "a, b, c"
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
