"""One direction of one connection: reads its source, holds what is under way, writes its target.

    source ──fill──▶ rate ──▶ held: (due, chunk | FIN | RST) ──deliver──▶ due, thawed ──▶ target
                                                                              └─▶ swallowed, in a black hole

The end of a stream travels like its bytes: behind them, delayed, frozen and swallowed as they are. Reading stops while
much is held, so that a target that does not read slows its source, as without a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from enum import Enum
from typing import Protocol

from shrk_cli.chaos.line import Line

#: What 100 Mbit/s have under way in 80 ms, a bad line to another continent; beyond it the source has to wait.
HELD_BYTES_MAX = 1024 * 1024
#: A chunk of one byte costs a hundred in memory: many small ones count by their number.
HELD_CHUNKS_MAX = 4096
#: The kernel tells nobody of an acknowledgement. On loopback it comes within microseconds.
ACKNOWLEDGE_POLL_SECONDS = 0.002
#: Two seconds, beyond any round trip: who does not read by then is cut without what came last.
ACKNOWLEDGE_TRIES_MAX = 1000


class End(Enum):
    """How a stream ends."""

    FIN = "fin"
    RST = "rst"


class Ending(Protocol):
    """What a pipe tells its connection."""

    def finished(self) -> None:
        """The source's stream is over, and so is all that came of it."""

    def unheard(self, pipe: Pipe) -> None:
        """The target takes no more: whoever sends to it must learn so."""

    def reset(self, *, fault: bool) -> None:
        """The connection is to be reset: by a fault, or else because a peer did so."""


class Pipe:
    """Run fill() and deliver() as tasks; discard() once they have been cancelled."""

    def __init__(self, line: Line, source: socket.socket, target: socket.socket, connection: Ending) -> None:
        self._line = line
        self._source = source
        self._target = target
        self._connection = connection
        self._held: deque[tuple[float, bytes | End]] = deque()
        self._held_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._passed = 0
        self._reset_at: int | None = None
        self._shut = False
        #: Something went into a black hole: what follows would not be the stream that the source sent.
        self.lost = False
        #: The source's end has been delivered, swallowed or dropped.
        self.finished = False

    async def fill(self) -> None:
        """Read the source to its end."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.wait()
            try:
                chunk = await loop.sock_recv(self._source, self._line.faults.read_bytes_max)
            except OSError:
                self.put(End.RST)
                return
            if not chunk:
                self.put(End.FIN)
                return
            self._held_bytes += len(chunk)
            self._line.hold(len(chunk))
            await self._line.leave(len(chunk))
            self.put(chunk)

    def put(self, what: bytes | End) -> None:
        """Send it on its way. What has jitter behind it waits for what is in front."""
        self._held.append((self._line.due(), what))
        self._arrived.set()
        self._weigh()

    async def deliver(self) -> None:
        """Give the target what is due, for ever: even after a FIN there may be word that nobody listens any more."""
        while True:
            await self._arrived.wait()
            due, what = self._held.popleft()
            if not self._held:
                self._arrived.clear()
            await self._line.arrive(due)
            if isinstance(what, bytes):
                await self._pass_on(what)
            else:
                await self._end(what)

    def reset_after(self, count: int | None) -> None:
        """Reset the connection when `count` more bytes have been delivered; None is never."""
        self._reset_at = None if count is None else self._passed + count

    def shut(self) -> None:
        """Send a FIN now; all that is held and all that comes is dropped."""
        self._shut = True
        self.lost = False  # nothing follows the gap
        self._send_fin()
        self._connection.finished()  # where it was kept for the gap's sake alone

    def discard(self) -> None:
        """Count what was under way as dropped."""
        self._drop(self._held_bytes)
        self._held.clear()
        self._arrived.clear()

    async def _pass_on(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            # Looked at before each write: a fault takes hold in the middle of a chunk, too.
            await self._line.thawed()
            if self._shut or self._line.faults.swallows:
                self.lost = self.lost or not self._shut
                self._drop(len(rest))
                return
            if (left := self._left()) <= 0:
                break
            try:
                count = self._target.send(rest[:left])
            except BlockingIOError:
                await _writable(self._target)
                continue
            except OSError:
                self._shut = True
                self._connection.unheard(self)
                continue
            rest = rest[count:]
            self._passed += count
            self._held_bytes -= count
            self._line.passed(count)
            self._weigh()
        if self._left() <= 0:
            self._drop(len(rest))
            await _acknowledged(self._target)
            self._connection.reset(fault=True)

    def _left(self) -> int:
        """How many more bytes may be delivered before the connection is reset."""
        limits = [at for at in (self._reset_at, self._line.faults.truncate_after_bytes) if at is not None]
        return min(limits) - self._passed if limits else sys.maxsize

    async def _end(self, how: End) -> None:
        await self._line.thawed()
        if self._line.faults.swallows and not self._shut:
            self.lost = True
        elif how is End.RST:
            self._connection.reset(fault=False)
            return
        elif not self._shut:
            self._send_fin()
        self.finished = True
        self._connection.finished()

    def _send_fin(self) -> None:
        with contextlib.suppress(OSError):  # it has been reset: nobody waits for a FIN
            self._target.shutdown(socket.SHUT_WR)

    def _drop(self, count: int) -> None:
        self._held_bytes -= count
        if count:
            self._line.dropped(count)
        self._weigh()

    def _weigh(self) -> None:
        """Let fill() read only while there is room."""
        if self._held_bytes < HELD_BYTES_MAX and len(self._held) < HELD_CHUNKS_MAX:
            self._room.set()
        else:
            self._room.clear()


async def _writable(target: socket.socket) -> None:
    """Wait until the kernel takes more."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(target, ready.set)
    try:
        await ready.wait()
    finally:
        if target.fileno() >= 0:  # not closed meanwhile
            loop.remove_writer(target)


async def _acknowledged(target: socket.socket) -> None:
    """Wait until the peer has what was sent: a reset throws away what the kernel has not brought over."""
    with contextlib.suppress(OSError):
        for _ in range(ACKNOWLEDGE_TRIES_MAX):
            if not struct.unpack("i", fcntl.ioctl(target, termios.TIOCOUTQ, bytes(4)))[0]:
                return
            await asyncio.sleep(ACKNOWLEDGE_POLL_SECONDS)
