"""Both ends of TCP connections on loopback, byte by byte and with their resets; and clocks that tests turn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from shrk_cli.chaos.faults import Direction
from shrk_cli.chaos.line import Clock, Dice
from shrk_cli.chaos.proxy import CONNECTIONS_MAX, ChaosProxy

UP, DOWN = Direction.UP, Direction.DOWN
_CHUNK = 64 * 1024


class Peer:
    """One end of a connection. A reset is a ConnectionResetError here, after all bytes that came before it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._loop = asyncio.get_running_loop()

    async def send(self, sent: bytes) -> None:
        """Returns when the kernel has all of it."""
        await self._loop.sock_sendall(self._end, sent)

    async def receive(self, count: int) -> bytes:
        """Exactly so many bytes; fewer fail."""
        got = bytearray()
        while len(got) < count:
            chunk = await self._loop.sock_recv(self._end, min(_CHUNK, count - len(got)))
            assert chunk, f"the stream ended after {len(got)} of {count} bytes"
            got += chunk
        return bytes(got)

    async def rest(self) -> tuple[bytes, str]:
        """All that still comes, and how it ends: "fin" or "rst"."""
        got = bytearray()
        try:
            while chunk := await self._loop.sock_recv(self._end, _CHUNK):
                got += chunk
        except ConnectionResetError:
            return bytes(got), "rst"
        return bytes(got), "fin"

    def hears_nothing(self) -> bool:
        """Whether neither bytes nor an end have come."""
        try:
            self._end.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        return False

    def finish(self) -> None:
        """Send a FIN; more can be received."""
        self._end.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send an RST."""
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._end.close()

    def close(self) -> None:
        self._end.close()


class Loopback:
    """A target, diallers that reach it through a proxy, and everything closed at the end."""

    def __init__(self, proxy: ChaosProxy, listener: socket.socket) -> None:
        self.proxy = proxy
        self._listener = listener
        self._peers: list[Peer] = []

    async def dial(self) -> Peer:
        """Connect to the proxy."""
        self._peers.append(await dial(self.proxy.port))
        return self._peers[-1]

    async def accept(self) -> Peer:
        """The next connection at the target."""
        end, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._peers.append(Peer(end))
        return self._peers[-1]

    async def pair(self) -> tuple[Peer, Peer]:
        """A dialler, and its other end at the target."""
        return await self.dial(), await self.accept()

    def narrow(self) -> None:
        """Let the kernel keep little for ends at the target that do not read."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def nobody_dialled(self) -> bool:
        """Whether no connection waits at the target."""
        try:
            end, _ = self._listener.accept()
        except BlockingIOError:
            return True
        end.close()
        return False

    async def held(self, direction: Direction, count: int) -> None:
        """Wait until the proxy holds so many bytes."""
        await self.proxy.until(lambda: self.proxy.line(direction).held_bytes == count)

    async def dropped(self, direction: Direction, count: int) -> None:
        """Wait until the proxy has dropped so many bytes."""
        await self.proxy.until(lambda: self.proxy.line(direction).dropped_bytes == count)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


async def dial(port: int) -> Peer:
    """Connect to a port of loopback."""
    end = socket.socket()
    end.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
    except BaseException:
        end.close()
        raise
    return Peer(end)


async def turns(count: int = 200) -> None:
    """Let the loop go round: each turn reads and writes whatever can be."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A non-blocking listener on any port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@asynccontextmanager
async def loopback(
    clock: Clock | None = None, dice: Dice | None = None, connections_max: int = CONNECTIONS_MAX
) -> AsyncIterator[Loopback]:
    """A target behind a ChaosProxy."""
    with listening() as listener:
        to = listener.getsockname()
        async with ChaosProxy.open(to=to, clock=clock, dice=dice, connections_max=connections_max) as proxy:
            ends = Loopback(proxy, listener)
            try:
                yield ends
            finally:
                ends.close()


class HandClock:
    """Stands still until a test turns it."""

    def __init__(self) -> None:
        self._time = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._asleep = asyncio.Condition()

    def now(self) -> float:
        return self._time

    async def sleep_until(self, moment: float) -> None:
        if moment <= self._time:
            return
        woken = asyncio.Event()
        async with self._asleep:
            self._sleepers.append((moment, woken))
            self._asleep.notify_all()
        await woken.wait()

    async def next_alarm(self) -> float:
        """Wait until somebody sleeps; in how many seconds the first of them is to wake."""
        async with self._asleep:
            await self._asleep.wait_for(lambda: self._sleepers)
        return min(moment for moment, _ in self._sleepers) - self._time

    def turn(self, seconds: float) -> None:
        """Let time pass, and wake whose time has come."""
        self._time += seconds
        for sleeper in tuple(self._sleepers):
            if sleeper[0] <= self._time + 1e-9:
                self._time = max(self._time, sleeper[0])
                self._sleepers.remove(sleeper)
                sleeper[1].set()


class HastyClock:
    """Nobody waits: whoever sleeps finds that the time has come."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, moment: float) -> None:
        await asyncio.sleep(0)
        self.time = max(self.time, moment)
