"""Virtual time: what is due, in order. What is due at the same moment happens in the order in which it was asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]

#: Monotonic clocks begin anywhere; nought would hide code that takes nought for "never".
BEGINNING = 1_000.0


class Clock:
    """Time passes only from one action to the next."""

    __slots__ = ("_due", "_serial", "now")

    def __init__(self) -> None:
        #: Seconds.
        self.now = BEGINNING
        self._due: list[tuple[float, int, Action]] = []
        self._serial = 0

    def at(self, when: float, action: Action) -> None:
        """Do it then; at once where that is past."""
        self._serial += 1
        heapq.heappush(self._due, (max(when, self.now), self._serial, action))

    def after(self, seconds: float, action: Action) -> None:
        """Do it so much later; after 0 s: behind everything that is due now."""
        self._serial += 1
        heapq.heappush(self._due, (self.now + seconds, self._serial, action))

    def run(self, until: float) -> None:
        """Let time pass."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, action = heapq.heappop(due)
            action()
        self.now = until
