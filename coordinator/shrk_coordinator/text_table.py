"""Tables for people: columns as wide as what is in them, plain text, one line a row."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Without what could move a terminal's cursor: names and reasons come from other people's machines."""
    return "".join(c if c.isprintable() else "?" for c in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The whole table; all rows have as many cells as the head."""
    cells = [list(head)] + [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
