"""One fact at a time: how both drivers take events to their state's door.

An event may be posted while another is being taken in (an effect that finds a link gone): it waits behind, so that
the state sees one fact at a time and effects keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Turns(Generic[Event]):
    """Calls `take` with one event after another, never within itself."""

    def __init__(self, take: Callable[[Event], None]) -> None:
        self._take = take
        self._waiting: deque[Event] = deque()
        self._busy = False

    def post(self, event: Event) -> None:
        """Take in one event, and whatever is posted meanwhile; returns at once where another is being taken in."""
        self._waiting.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                self._take(self._waiting.popleft())
        finally:
            self._busy = False
