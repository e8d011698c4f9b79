"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrk_node_agent.commands.phrases import columns, counted, cut, gigabytes, lasting, padded, printable, wrapped


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


def test_wide_characters_have_two_columns() -> None:
    assert columns("日本 é🦈") == 2 + 2 + 1 + 1 + 2
    assert padded("日本", 6) == "日本  "
    assert padded("W", 3, right=True) == "  W"
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 6) == "日本語"


def test_a_long_line_goes_on_indented_and_breaks_at_spaces() -> None:
    assert wrapped("one two three", 8, "  ") == ["one two", "  three"]
    assert wrapped("one two", 7, "  ") == ["one two"]
    assert wrapped("", 7, "  ") == []
    assert wrapped("without any end", None, "") == ["without any end"]


@given(some.text(alphabet="ab 日é", max_size=200), some.integers(8, 40), some.sampled_from(["", "    ", "#     "]))
def test_no_wrapped_line_is_wider_than_it_may_be_and_no_word_is_lost(text: str, width: int, indent: str) -> None:
    lines = wrapped(text, width, indent)
    assert all(columns(line) <= width for line in lines)
    rest = "".join(line if place == 0 else line.removeprefix(indent.rstrip()) for place, line in enumerate(lines))
    assert rest.replace(" ", "") == text.replace(" ", "")
