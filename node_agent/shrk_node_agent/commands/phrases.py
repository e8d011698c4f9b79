"""Figures and names as people read them."""

from __future__ import annotations

import unicodedata

GB = 1 << 30

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def printable(text: str) -> str:
    """Without what could move a terminal's cursor: reasons quote engines and other machines."""
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


def columns(text: str) -> int:
    """How many columns a terminal gives a text: East Asian characters and emoji have two, combining ones none."""
    return sum(_columns(character) for character in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Filled up with spaces; `right`: on its left side."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def cut(text: str, width: int | None) -> str:
    """No wider than so many columns; None: as it is."""
    if width is None or columns(text) <= width:
        return text
    return _head(text, width - 1) + "…"


def wrapped(text: str, width: int | None, indent: str) -> list[str]:
    """In lines no wider than so many columns, broken at spaces where there are any; all but the first are indented."""
    lines: list[str] = []
    begins = len(text) - len(text.lstrip())
    while width is not None and columns(text) > width:
        head = _head(text, width)
        # A space directly behind what fits will do, too.
        space = text.rfind(" ", begins + 1, len(head) + 1)
        end = space if space > 0 else len(head)
        lines.append(text[:end].rstrip())
        text, begins = indent + text[end:].lstrip(), len(indent)
    return [*lines, text] if text else lines


def _head(text: str, width: int) -> str:
    taken = 0
    for place, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:place]
    return text


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def lasting(seconds: float) -> str:
    """A length of time in its two largest units: `40 s`, `5 min`, `3 h 20 min`, `12 d 4 h`."""
    left = max(0, int(seconds))
    words: list[str] = []
    for unit, length in _UNITS:
        if left >= length or words:
            count, left = divmod(left, length)
            words.append(f"{count} {unit}" if count else "")
            if len(words) == 2:
                break
    if not words:
        return f"{left} s"
    return " ".join(word for word in words if word)


def gigabytes(size: float) -> str:
    """A size in GB, without its unit: `21.8`, `24`."""
    return f"{max(0.0, round(size / GB, 1)):g}"


def counted(number: int) -> str:
    """A large number in a form that one reads at a glance: `999`, `1 204`, `2.1 M`."""
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number:,}".replace(",", " ")
