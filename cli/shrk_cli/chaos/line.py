"""One direction through the proxy, of all connections together: how fast it carries, and what becomes of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from shrk_cli.chaos.faults import LineFaults


class Clock(Protocol):
    """Time as lines see it, in seconds from anywhere."""

    def now(self) -> float: ...

    async def sleep_until(self, moment: float) -> None:
        """Return at `moment`; at once where that has passed."""


class Dice(Protocol):
    """Where jitter comes from; a seeded `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""


class LoopClock:
    """The running event loop's own clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, moment: float) -> None:
        # sleep(0) would give the loop away for a turn, for each chunk of a line without delay.
        if (seconds := moment - self.now()) > 0:
            await asyncio.sleep(seconds)


class Line:
    """Faults and counters of one direction. Whoever changes a counter is followed by `on_change`."""

    def __init__(self, clock: Clock, dice: Dice | None, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._dice = dice
        self._on_change = on_change
        self._faults = LineFaults()
        self._busy_until = 0.0
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.passed_bytes = 0
        self.dropped_bytes = 0
        #: Read, and neither passed nor dropped yet.
        self.held_bytes = 0

    @property
    def faults(self) -> LineFaults:
        return self._faults

    @faults.setter
    def faults(self, faults: LineFaults) -> None:
        if faults.rate_bytes_per_second != self._faults.rate_bytes_per_second:
            self._busy_until = 0.0  # what was reserved at the old rate holds up nothing new
        self._faults = faults
        if faults.freezes:
            self._thawed.clear()
        else:
            self._thawed.set()

    async def leave(self, count: int) -> None:
        """Wait until the line has taken `count` bytes. They leave one chunk after another, whosever they are."""
        if seconds := self._faults.wire_seconds(count):
            self._busy_until = max(self._clock.now(), self._busy_until) + seconds
            await self._clock.sleep_until(self._busy_until)

    def due(self) -> float:
        """When that which leaves now is at the far end, by the clock."""
        fraction = self._dice.random() if self._dice and self._faults.jitter_ms else 0.0
        return self._clock.now() + self._faults.delay_seconds(fraction)

    async def arrive(self, due: float) -> None:
        """Wait for that moment."""
        await self._clock.sleep_until(due)

    async def thawed(self) -> None:
        """Wait while the line is frozen."""
        await self._thawed.wait()

    def hold(self, count: int) -> None:
        """`count` bytes were read."""
        self.held_bytes += count
        self._on_change()

    def passed(self, count: int) -> None:
        """`count` held bytes were delivered."""
        self.held_bytes -= count
        self.passed_bytes += count
        self._on_change()

    def dropped(self, count: int) -> None:
        """`count` held bytes will never be delivered."""
        self.held_bytes -= count
        self.dropped_bytes += count
        self._on_change()
