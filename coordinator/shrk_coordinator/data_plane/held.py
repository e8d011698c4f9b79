"""Bytes held in memory for callers: bodies on their way in, whole answers on their way out."""

from __future__ import annotations

#: A 1 GiB machine lives with it; a thousand bodies of 1 MiB, or sixteen of the largest answers, fit in.
HELD_BYTES_MAX = 512 * 1024 * 1024


class HeldBytes:
    """A count with a bound; one per coordinator."""

    def __init__(self, bytes_max: int = HELD_BYTES_MAX) -> None:
        self._left = bytes_max

    def take(self, size: int) -> bool:
        """Hold so many more; False, and nothing held, where that would be too many."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Hold so many less."""
        self._left += size
