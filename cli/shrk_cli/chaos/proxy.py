"""A TCP proxy with faults: byte for byte transparent, until it is told to be a bad line.

    async with ChaosProxy.open(to=("127.0.0.1", 9100)) as proxy:
        ...                           # connect to 127.0.0.1, proxy.port
        proxy.set(delay_ms=300)
        proxy.black_hole(Direction.DOWN)
        proxy.heal()

Faults take hold at once, and none of the calls waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from shrk_cli.chaos.address import Address
from shrk_cli.chaos.connection import Connection, Surroundings, reset_socket
from shrk_cli.chaos.faults import COUNT_BYTES_MAX, Direction, FaultRefused, Flow, LineFaults, check_count
from shrk_cli.chaos.line import Clock, Dice, Line, LoopClock

#: Two sockets each: together they fit into the 1,024 files that a process may usually open.
CONNECTIONS_MAX = 400
#: As many as the kernel keeps for us between two turns of the loop.
BACKLOG_MAX = 128
#: Who has not answered a SYN by then is as good as gone; three SYNs were sent.
DIAL_SECONDS_MAX = 10.0
#: Files may be short only for a moment, until some connection ends.
ACCEPT_RETRY_SECONDS = 0.2

_BOTH = (Direction.UP, Direction.DOWN)
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True)
class Counts:
    """Connections since the start."""

    accepted: int = 0
    #: Reset as soon as they came: by refuse(), or because there were too many.
    refused: int = 0
    #: The target could not be reached.
    unreached: int = 0
    #: By a fault, or by heal() after a loss. What the peers reset themselves does not count.
    reset: int = 0


class ChaosProxy:
    """One listening port and one target. Only within `open`."""

    def __init__(
        self, listener: socket.socket, to: Address, clock: Clock, dice: Dice | None, connections_max: int
    ) -> None:
        host, port = listener.getsockname()[:2]
        self.listening = Address(host, port)
        self.to = to
        self.connections_max = connections_max
        self.counts = Counts()
        #: Done, with the exception, when this code has a bug.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listener = listener
        self._dice = dice
        self._lines = {direction: Line(clock, dice, self._noticed) for direction in _BOTH}
        self._refusing = False
        self._connections: dict[Connection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._around = Surroundings(
            up=self._lines[Direction.UP],
            down=self._lines[Direction.DOWN],
            dial=self._dial,
            spawn=self._spawn,
            on_unreached=self._note_unreached,
            on_end=self._note_end,
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        *,
        to: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        clock: Clock | None = None,
        dice: Dice | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> AsyncIterator[Self]:
        """Listen, and forward to `to` until the end of the block, which resets what is still connected.

        `dice`, such as a seeded `random.Random`, is needed for jitter only. Raises OSError where it cannot listen.
        """
        proxy = cls(await _listen(listen), Address(*to), clock or LoopClock(), dice, connections_max)
        proxy._spawn(proxy._accept())
        try:
            yield proxy
        finally:
            await proxy._close()
            if proxy.failed.done():
                proxy.failed.result()

    @property
    def port(self) -> int:
        return self.listening.port

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    @property
    def refusing(self) -> bool:
        """Whether new connections are reset at once."""
        return self._refusing

    def line(self, direction: Direction) -> Line:
        """The line UP or DOWN: its faults and counters, to read."""
        return self._lines[direction]

    def set(self, direction: Direction = Direction.BOTH, /, **changes: object) -> None:
        """Replace settings of LineFaults by name; the others stay. Raises FaultRefused, and then changes nothing.

        Bytes that are under way keep the moment that they had.
        """
        wanted = {way: self._lines[way].faults.changed(changes) for way in _ways(direction)}
        if self._dice is None and any(faults.jitter_ms for faults in wanted.values()):
            raise FaultRefused("jitter_ms", "jitter_ms needs dice", "open the proxy with dice=random.Random(seed)")
        for way, faults in wanted.items():
            self._apply(way, faults)

    def black_hole(self, direction: Direction = Direction.BOTH) -> None:
        """Swallow all bytes. Connections stay open; new ones are accepted, and with `up` the target is not dialled.

        One direction alone leaves connections half open.
        """
        self.set(direction, flow=Flow.BLACK_HOLE)

    def freeze(self, direction: Direction = Direction.BOTH) -> None:
        """Hold all bytes until heal(); then nothing is missing."""
        self.set(direction, flow=Flow.FREEZE)

    def refuse(self) -> None:
        """Reset new connections as soon as they come; those that are there go on."""
        self._refusing = True

    def reset(self) -> None:
        """Reset every connection on both sides, at once."""
        for connection in tuple(self._connections):
            connection.reset(fault=True)

    def reset_after(self, count: int, direction: Direction = Direction.BOTH) -> None:
        """Reset each connection that is open now when `count` more bytes of it have been delivered.

        For all connections, also new ones, counted from their beginning: set(truncate_after_bytes=...). Raises
        FaultRefused for a count out of range.
        """
        check_count("after_bytes", count, 0, COUNT_BYTES_MAX)
        if count == 0:
            self.reset()
        for connection in self._connections:
            for way in _ways(direction):
                connection.reset_after(count, way)

    def close_connections(self, direction: Direction = Direction.BOTH) -> None:
        """Send a FIN to the target (UP), the dialler (DOWN) or both now; what would have followed is dropped."""
        for connection in tuple(self._connections):
            for way in _ways(direction):
                connection.shut(way)

    def heal(self) -> None:
        """No faults from now on. What was frozen is delivered; what lost bytes to a black hole is reset."""
        self._refusing = False
        for connection in self._connections:
            for way in _BOTH:
                connection.reset_after(None, way)
        for way in _BOTH:
            self._apply(way, LineFaults())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is true; it is asked whenever a counter has changed."""
        if condition():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, waiting)
        self._waiting.append(entry)
        try:
            await waiting
        finally:
            self._waiting.remove(entry)

    def _apply(self, direction: Direction, faults: LineFaults) -> None:
        line = self._lines[direction]
        healed = line.faults.swallows and not faults.swallows
        line.faults = faults
        if healed:
            # Their peers would get a stream with a hole in it.
            for connection in tuple(self._connections):
                if connection.lost(direction):
                    connection.reset(fault=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                dialler, _ = await loop.sock_accept(self._listener)
            except ConnectionAbortedError:
                continue  # left before its turn came
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            if self._refusing or not self._has_room():
                self.counts.refused += 1
                reset_socket(dialler)
            else:
                self.counts.accepted += 1
                _at_once(dialler)
                connection = Connection(dialler, self._around)
                self._connections[connection] = None
                connection.begin()
            self._noticed()

    def _has_room(self) -> bool:
        """Whether there is place for one more. Before anybody is refused, one that both peers have left is ended."""
        if len(self._connections) >= self.connections_max:
            left = next((connection for connection in self._connections if connection.left_by_both), None)
            if left:
                left.end()
        return len(self._connections) < self.connections_max

    async def _dial(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIAL_SECONDS_MAX):
            found = await loop.getaddrinfo(self.to.host, self.to.port, type=socket.SOCK_STREAM)
            *others, last = [(family, address) for family, *_, address in found]
            for family, address in others:
                with contextlib.suppress(OSError):
                    return await _connect(family, address)
            return await _connect(*last)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_done)
        return task

    def _note_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            self.failed.set_exception(error)

    def _note_unreached(self) -> None:
        self.counts.unreached += 1
        self._noticed()

    def _note_end(self, connection: Connection, fault: bool) -> None:
        self.counts.reset += fault
        del self._connections[connection]
        self._noticed()

    def _noticed(self) -> None:
        for condition, waiting in self._waiting:
            if not waiting.done() and condition():
                waiting.set_result(None)

    async def _close(self) -> None:
        for connection in tuple(self._connections):
            connection.reset(fault=False)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()


def _ways(direction: Direction) -> tuple[Direction, ...]:
    return _BOTH if direction is Direction.BOTH else (direction,)


def _at_once(end: socket.socket) -> None:
    """Small writes must not wait for each other: whatever delay there is, is asked for."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _connect(family: int, address: Any) -> socket.socket:
    target = socket.socket(family, socket.SOCK_STREAM)
    try:
        target.setblocking(False)
        await asyncio.get_running_loop().sock_connect(target, address)
    except BaseException:
        reset_socket(target)  # the peer may have accepted already
        raise
    _at_once(target)
    return target


async def _listen(where: tuple[str, int]) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = found[0]
    listener = socket.create_server(address[:2], family=family, backlog=BACKLOG_MAX)
    listener.setblocking(False)
    return listener
