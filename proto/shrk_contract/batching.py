"""The batching writer: frames that become ready in one event-loop tick leave in one message.

A gRPC message costs about as much as twenty frames, so this is where most of the link's speed comes
from. While one message is being written, the next batch gathers by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shrk_contract.terms import BATCH_BYTES_MAX

Frame = TypeVar("Frame")

#: Frames waiting for a peer that does not read. Credit bounds each attempt to far less; beyond this the
#: peer is broken, and the link is better closed than memory lost.
WAITING_BYTES_MAX = 64 * 1024 * 1024
#: What a frame without a body is taken to weigh.
FRAME_BYTES = 64
#: How long a patient frame waits for company. Far below every deadline of the link, and under load something
#: else leaves within it, so that such a frame costs no message of its own.
PATIENCE_SECONDS = 0.02


class PeerNotReading(ConnectionError):
    """The peer has stopped reading its link; the link is closed."""


class Outbox(Generic[Frame]):
    """Frames on their way to one peer.

    `write` sends one batch and returns when the transport took it. `frames` and `messages` count what
    left, for the metric "frames per message".
    """

    def __init__(self, write: Callable[[list[Frame]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[Frame] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._patience: asyncio.TimerHandle | None = None
        self.frames = 0
        self.messages = 0
        #: Hold what is ready this long before writing, as a peer short of time may ask (0: never).
        self.hold_seconds = 0.0

    def send(self, frame: Frame, body_bytes: int = 0, *, patient: bool = False) -> None:
        """Queue one frame; it leaves with all others of this tick. A patient one does not start a message: it
        leaves with the next that does, or after PATIENCE_SECONDS. Raises PeerNotReading at the bound."""
        size = FRAME_BYTES + body_bytes
        if self._bytes + size > WAITING_BYTES_MAX:
            raise PeerNotReading(f"{self._bytes} bytes wait for a peer that does not read")
        self._waiting.append(frame)
        self._sizes.append(size)
        self._bytes += size
        if len(self._waiting) == 1:
            self._empty.clear()
        if not patient:
            self._ready.set()
        elif self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._ready.set)

    def beat(self) -> None:
        """Send a batch without frames, unless some are waiting: it says no more than that this end lives."""
        self._ready.set()

    async def run(self) -> None:
        """Write batches until cancelled, or until `write` raises."""
        while True:
            await self._ready.wait()
            if self.hold_seconds:
                await asyncio.sleep(self.hold_seconds)
            self._ready.clear()
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            frames, sizes = self._waiting, self._sizes
            self._waiting, self._sizes = [], []
            for batch, size in _batches(frames, sizes):
                await self._write(batch)
                # Counted until the transport has it: a peer that does not read must meet the bound.
                self._bytes -= size
                self.frames += len(batch)
                self.messages += 1
            if not self._waiting:
                self._empty.set()

    async def flushed(self) -> None:
        """Return once everything queued so far has been handed to the transport."""
        await self._empty.wait()


def _batches(frames: list[Frame], sizes: list[int]) -> list[tuple[list[Frame], int]]:
    """Cut frames, in order, into batches of at most BATCH_BYTES_MAX (one frame is always allowed), each with its
    size. No frames make one empty batch."""
    whole = sum(sizes)
    if whole <= BATCH_BYTES_MAX:
        return [(frames, whole)]
    batches: list[tuple[list[Frame], int]] = []
    batch: list[Frame] = []
    total = 0
    for frame, size in zip(frames, sizes, strict=True):
        if batch and total + size > BATCH_BYTES_MAX:
            batches.append((batch, total))
            batch, total = [], 0
        batch.append(frame)
        total += size
    return [*batches, (batch, total)]
