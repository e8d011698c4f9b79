"""One connection through the proxy: the dialler's socket, the target's, and a pipe each way.

    accepted ──▶ reaching ──▶ piped ──▶ ended        reaching waits while `up` is frozen
                    │  └─ target refuses ──▶ ended   with a reset for the dialler
                    └──▶ adrift ──▶ ended            in a black hole the target never hears of it

It ends when both streams are over, by a reset of either peer, or by end(). A connection that lost something to a black
hole is kept when both streams are over, for its peers must not learn of each other's end; only its place may be taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from shrk_cli.chaos.faults import CHUNK_BYTES_MAX, Direction
from shrk_cli.chaos.line import Line
from shrk_cli.chaos.pipe import End, Pipe

#: l_onoff, l_linger: close() throws away what is unsent and sends RST instead of FIN.
_LINGER_RST = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a connection is given by its proxy."""

    up: Line
    down: Line
    #: A connected, non-blocking socket. Raises OSError or TimeoutError.
    dial: Callable[[], Awaitable[socket.socket]]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    on_unreached: Callable[[], None]
    #: Called once; `fault` where it was reset by one.
    on_end: Callable[[Connection, bool], None]


class Connection:
    """begin() and it lives until it calls `on_end`."""

    def __init__(self, dialler: socket.socket, around: Surroundings) -> None:
        self._dialler = dialler
        self._around = around
        self._target: socket.socket | None = None
        self._pipes: dict[Direction, Pipe] = {}
        #: What pipes are to be told once there are any.
        self._untold: list[tuple[Direction, Callable[[Pipe], None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        #: The black hole that took the target away; there will be none.
        self._adrift: Direction | None = None
        self._ended = False

    def begin(self) -> None:
        """Reach for the target, then carry bytes both ways."""
        self._tasks = [self._around.spawn(self._reach())]

    def lost(self, direction: Direction) -> bool:
        """Whether a black hole took something of this direction (UP or DOWN)."""
        return self._adrift is direction or (direction in self._pipes and self._pipes[direction].lost)

    @property
    def left_by_both(self) -> bool:
        """Whether neither peer sends any more; only after a loss is such a connection kept."""
        return bool(self._pipes) and all(pipe.finished for pipe in self._pipes.values())

    def reset_after(self, count: int | None, direction: Direction) -> None:
        """Reset it when `count` more bytes have been delivered in this direction (UP or DOWN); None is never."""
        self._tell(direction, lambda pipe: pipe.reset_after(count))

    def shut(self, direction: Direction) -> None:
        """Send a FIN this way (UP or DOWN)."""
        if self._adrift:
            self.end()
        else:
            self._tell(direction, Pipe.shut)

    def finished(self) -> None:
        """Part of `Ending`: end it if both streams are over and nothing was lost."""
        if self.left_by_both and not any(pipe.lost for pipe in self._pipes.values()):
            self.end()

    def unheard(self, pipe: Pipe) -> None:
        """Part of `Ending`: as TCP itself, answer those who send to nobody with a reset."""
        self._pipes[Direction.DOWN if pipe is self._pipes[Direction.UP] else Direction.UP].put(End.RST)

    def reset(self, *, fault: bool) -> None:
        """End it with a reset for both peers."""
        self.end(reset=True, fault=fault)

    def end(self, *, reset: bool = False, fault: bool = False) -> None:
        """Close both sockets now, with FIN or RST. What was under way is dropped."""
        if self._ended:
            return
        self._ended = True
        loop = asyncio.get_running_loop()
        for end in (self._dialler, self._target):
            if end is not None:
                # A descriptor may be given out again at once: the loop must not watch it any longer.
                loop.remove_reader(end)
                loop.remove_writer(end)
                _close(end, reset=reset)
        for task in self._tasks:
            task.cancel()
        for pipe in self._pipes.values():
            pipe.discard()
        self._around.on_end(self, fault)

    async def _reach(self) -> None:
        await self._around.up.thawed()
        if self._around.up.faults.swallows:
            await self._drift(Direction.UP)
            return
        try:
            target = await self._around.dial()
        except (OSError, TimeoutError):
            self._around.on_unreached()
            await self._around.down.thawed()
            if self._around.down.faults.swallows:
                await self._drift(Direction.DOWN)
            self.reset(fault=False)
            return
        self._target = target
        up = Pipe(self._around.up, self._dialler, target, self)
        down = Pipe(self._around.down, target, self._dialler, self)
        self._pipes = {Direction.UP: up, Direction.DOWN: down}
        for direction, tell in self._untold:
            tell(self._pipes[direction])
        self._tasks = [self._around.spawn(work()) for pipe in (up, down) for work in (pipe.fill, pipe.deliver)]

    def _tell(self, direction: Direction, tell: Callable[[Pipe], None]) -> None:
        """Now, or as soon as the target has been reached."""
        if self._pipes:
            tell(self._pipes[direction])
        else:
            self._untold.append((direction, tell))

    async def _drift(self, black_hole: Direction) -> None:
        """Swallow what the dialler says, until it leaves."""
        self._adrift = black_hole
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while chunk := await loop.sock_recv(self._dialler, CHUNK_BYTES_MAX):
                self._around.up.hold(len(chunk))
                self._around.up.dropped(len(chunk))
        self.end()


def reset_socket(end: socket.socket) -> None:
    """Close it with RST."""
    _close(end, reset=True)


def _close(end: socket.socket, *, reset: bool) -> None:
    with contextlib.closing(end):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
