"""Tables for people."""

from __future__ import annotations

from shrk_coordinator.text_table import printable, table


def test_columns_are_as_wide_as_what_is_in_them_and_no_line_ends_in_blanks() -> None:
    assert table(("A", "BB"), [("long one", ""), ("x", "y")]) == "A         BB\nlong one\nx         y"


def test_a_strangers_words_move_no_cursor_and_begin_no_line() -> None:
    assert printable("a\x1b[2J\r\nb\u202e") == "a?[2J??b?"
    assert table(("A",), [("x\ny",)]) == "A\nx?y"
