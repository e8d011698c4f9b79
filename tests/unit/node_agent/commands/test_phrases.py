"""Figures as people read them."""

from __future__ import annotations

import pytest

from shrk_node_agent.commands.phrases import counted, gigabytes, lasting, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (5_400, "1 h 30 min"),
        (86_400, "1 d"),
        (86_400 + 1_800, "1 d"),
        (3 * 86_400 + 4 * 3_600, "3 d 4 h"),
    ],
)
def test_a_length_of_time_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_sizes_and_counts_are_short() -> None:
    assert [gigabytes(size) for size in (0, 1 << 29, 24 << 30)] == ["0", "0.5", "24"]
    assert [counted(number) for number in (0, 999, 1_204, 2_130_000)] == ["0", "999", "1 204", "2.1 M"]


def test_control_characters_are_taken_out() -> None:
    assert printable("a\x1b[2Jb\nc ") == "a [2Jb c"
