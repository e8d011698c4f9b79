"""The product's relays with their waits in virtual time, and a witness at the point where pieces are accepted.

What the product awaits (`respond`) is told again here in few lines; `pump`, `piece`, `finish`, credit, stall clock and
all that decides are its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from shrk_contract.terms import PART_BYTES_MAX
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.data_plane.chunk_pipe import CallerGone, ChunkPipe
from shrk_coordinator.data_plane.errors import error_event
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Relay, Shared
from shrk_coordinator.data_plane.streamed import StreamedRelay
from shrk_coordinator.data_plane.whole import BufferedRelay, WholeRelay
from shrk_coordinator.errors import ApiError
from shrk_coordinator.state.cursor import CommitCursor
from shrk_coordinator.state.events import RequestId
from simulation.fibers import Until, Wake
from simulation.reader import Reader

#: An unread transport says so from here on, and no more below that: asyncio's own marks.
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024

#: Hears of each piece that a relay accepts: the request, and the stream that the piece names.
Witness = Callable[[RequestId, int], None]
MakeCursor = Callable[[], CommitCursor]


class CallerPipe(ChunkPipe):
    """A caller's connection: what is written reaches the reader, who takes it in at a pace of its own."""

    __slots__ = ("_backlog", "_drain", "_later", "_reader", "closed")

    def __init__(
        self, reader: Reader, later: Callable[[float, Callable[[], None]], None], stall_seconds: float
    ) -> None:
        self._reader = reader
        self._later = later
        self._stall_seconds = stall_seconds
        self._backlog = 0
        self._drain = Wake()
        #: The caller has gone.
        self.closed = False

    @property
    def paused(self) -> bool:
        """Whether more is unread than should be."""
        return self._backlog > HIGH_WATER

    @property
    def backlog(self) -> int:
        """Bytes unread."""
        return self._backlog

    def send(self, parts: object) -> int:
        """Write. Raises CallerGone."""
        if self.closed:
            raise CallerGone
        assert isinstance(parts, list)
        written = b"".join(parts)
        if self._reader.pace:
            if not self._backlog:
                self._later(1.0, self._reads)
            self._backlog += len(written)
        self._reader.take(written)
        return len(written)

    def _reads(self) -> None:
        was_paused = self.paused
        self._backlog = max(0, self._backlog - int(self._reader.pace))
        if (was_paused and self._backlog <= LOW_WATER) or not self._backlog:
            self._drain.set()
        if self._backlog and not self.closed:
            self._later(1.0, self._reads)

    async def drained(self) -> None:
        """Return when the caller has read enough. Raises CallerGone."""
        while self.paused:
            before = self.backlog
            self._drain.clear()
            if not await Until(self._drain, self._stall_seconds) and self.backlog >= before:
                self.closed = True
                raise CallerGone


class _Played(Relay):
    """What all three kinds need in place of the event loop's."""

    def __init__(self, call: Call, shared: Shared, cursor: MakeCursor, witness: Witness) -> None:
        self._make_cursor = cursor
        self._witness = witness
        super().__init__(call, shared)
        self.cursor = cursor()
        self._wake = Wake()

    def _start_over(self) -> None:
        super()._start_over()
        self.cursor = self._make_cursor()

    def _take_whole(self, stream: int, piece: link_pb2.Piece, part: bytes) -> None:
        self._witness(self.call.request_id, piece.stream)
        super()._take_whole(stream, piece, part)

    @abstractmethod
    async def converse(self, pipe: CallerPipe) -> None:
        """Answer the caller, on a connection that is open. Raises ApiError before the first byte, and CallerGone."""


class PlayedStreamed(_Played, StreamedRelay):
    """An answer that goes out as it comes."""

    async def opened(self) -> None:
        """Until there is a first piece, an end, or headers are due."""
        await Until(self._wake, self.shared.patience.headers_after)

    async def _idle(self, pipe: ChunkPipe) -> None:
        if not await Until(self._wake, self.shared.patience.keep_alive):
            now = self._tell.now()
            if now - self._written_at >= self.shared.patience.keep_alive:
                pipe.send([sse.KEEP_ALIVE])
                self._written_at = now

    async def converse(self, pipe: CallerPipe) -> None:
        """As `respond`, on a connection that is open."""
        await self.opened()
        if self.error is not None and not self._pending:
            raise self.error
        try:
            await self.pump(pipe)
        except ApiError as error:
            pipe.send([error_event(error, self.call.request_id)])
        await pipe.drained()


class PlayedWhole(_Played, WholeRelay):
    """An answer in one piece."""

    async def converse(self, pipe: CallerPipe) -> None:
        """As `respond`, on a connection that is open."""
        await Until(self._wake, None)
        if self.error is not None:
            raise self.error
        if self._held <= PART_BYTES_MAX:
            pipe.send([b"".join(self._parts)])
        else:
            await self._send_held(pipe)
        await pipe.drained()


class PlayedBuffered(_Played, BufferedRelay):
    """A stream that begins when its answer is whole."""

    async def converse(self, pipe: CallerPipe) -> None:
        """As `respond`, on a connection that is open."""
        patience = self.shared.patience
        if await Until(self._wake, patience.headers_after) and self.error is not None:
            raise self.error
        while not await Until(self._wake, patience.keep_alive):
            await pipe.drained()
            pipe.send([sse.KEEP_ALIVE])
        if self.error is not None:
            pipe.send([error_event(self.error, self.call.request_id)])
        else:
            await self._send_held(pipe)
        await pipe.drained()
