"""Figures as people read them: a length of time, a size, a number of things, a list."""

from __future__ import annotations

from collections.abc import Sequence

GB = 1 << 30
#: Of a list, so many are named: a line in a table.
NAMED_MAX = 3


def lasting(seconds: float) -> str:
    """A length of time in its largest unit: `40 s`, `5 min`, `3 h`, `12 d`."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def gigabytes(size: int) -> str:
    """A size: `16 GB`, `7.5 GB`."""
    return f"{max(0.0, round(size / GB, 1)):g} GB"


def counted(count: int, noun: str) -> str:
    """So many of something: `1 node`, `2 nodes`, `no node`."""
    return f"{count or 'no'} {noun}{'s' if count > 1 else ''}"


def named(names: Sequence[str]) -> str:
    """A list, of which a few are named: `a, b, c and 2 more`."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
