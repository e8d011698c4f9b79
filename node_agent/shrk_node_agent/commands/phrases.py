"""Figures and names as people read them."""

from __future__ import annotations

GB = 1 << 30

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def printable(text: str) -> str:
    """Without what could move a terminal's cursor: reasons quote engines and other machines."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


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
