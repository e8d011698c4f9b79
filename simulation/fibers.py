"""Coroutines without an event loop: the product's own `async` code where it waits for nothing but what is played here.

A fiber runs until its coroutine awaits an `Until`; a `Wake` that is set, or time, lets it go on, as a task does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from simulation.clock import Clock


class Wake(asyncio.Event):
    """An event that fibers wait for; it can stand where the product has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], None]] = []

    def set(self) -> None:
        """Let those who wait go on."""
        super().set()
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for go_on in waiting:
                go_on()


class Until:
    """Awaited: True once the wake is set, False when so many seconds have passed (None: however long it takes)."""

    __slots__ = ("seconds", "wake")

    def __init__(self, wake: asyncio.Event, seconds: float | None) -> None:
        assert isinstance(wake, Wake), "fibers wait for nothing that an event loop would have to run"
        self.wake: Wake = wake
        self.seconds = seconds

    def __await__(self) -> Generator[Until, bool, bool]:
        return True if self.wake.is_set() else (yield self)


class Fiber:
    """One coroutine on its way."""

    __slots__ = ("_clock", "_coroutine", "_done", "_expected", "_waits_for", "over")

    def __init__(
        self,
        clock: Clock,
        coroutine: Coroutine[Any, Any, None],
        done: Callable[[Exception | None], None],
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        """`done` hears of its end, and which of the `expected` ended it; not where it was cancelled."""
        self._clock = clock
        self._coroutine = coroutine
        self._done = done
        self._expected = expected
        self._waits_for: Until | None = None
        self.over = False

    def run(self) -> None:
        """Run to its first wait, or to its end."""
        self._go_on(None)

    def cancel(self) -> None:
        """It goes no further."""
        if not self.over:
            self.over = True
            self._coroutine.close()

    def _go_on(self, answer: bool | None) -> None:
        self._waits_for = None
        try:
            until: Until = self._coroutine.send(answer)
        except StopIteration:
            self.over = True
            self._done(None)
        except self._expected as error:
            self.over = True
            self._done(error)
        else:
            self._wait(until)

    def _wait(self, until: Until) -> None:
        self._waits_for = until
        # A task that is woken runs in the next turn of its loop, whatever happens to the event until then.
        until.wake.waiting.append(partial(self._clock.after, 0.0, partial(self._heard, until, True)))
        if until.seconds is not None:
            self._clock.after(until.seconds, partial(self._heard, until, False))

    def _heard(self, until: Until, answer: bool) -> None:
        if not self.over and self._waits_for is until:
            self._go_on(answer)
