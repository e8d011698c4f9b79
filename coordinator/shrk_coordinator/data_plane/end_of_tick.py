"""Work that gathers during one tick of the event loop, and is done together at its end.

A callback of its own for each of a few hundred streams costs the loop about as much as all the rest of our code
for a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class EndOfTick:
    """One per event loop."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def add(self, work: Callable[[], None]) -> None:
        """Do `work` at the end of this tick, after what was added before it."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._run)
        self._due.append(work)

    def _run(self) -> None:
        due, self._due = iter(self._due), []
        try:
            for work in due:
                work()
        finally:
            # A surprise in one stream must not take the others along: they have their turn in the next tick.
            for work in due:
                self.add(work)
