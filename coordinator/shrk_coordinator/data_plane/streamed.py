"""An answer that goes out as it comes. From its first piece on it can only go on, here or from another node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web

from shrk_contract.terms import PART_BYTES_MAX
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.data_plane.chunk_pipe import CallerGone, ChunkPipe
from shrk_coordinator.data_plane.errors import error_event
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Relay, Shared
from shrk_coordinator.errors import ApiError, stream_lost
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import StreamId
from shrk_coordinator.state.stall import StallClock


class StreamedRelay(Relay):
    """An answer as a stream of events."""

    def __init__(self, call: Call, shared: Shared) -> None:
        super().__init__(call, shared)
        self._pending: list[bytes] = []
        self._pipe: ChunkPipe | None = None
        self._flush_due = False
        self._caller_gone = False
        self._written_at = 0.0
        #: Bytes written that the caller has not read on: its node gets no credit for them yet.
        self._unread = 0
        self._clock = StallClock(shared.paces.of(call.envelope.model))
        #: When the last piece came, of whichever attempt.
        self._heard_at = 0.0
        #: Something goes to the caller that cannot be taken back.
        self._said = False

    # --- the driver's port -------------------------------------------------------------------------

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        """An attempt starts; the time until it speaks is its prompt's."""
        self._clock.stop()
        return super().begin(effect)

    def stalled(self, now: float) -> StreamId | None:
        """The stream whose node sends nothing though it should, if it is so."""
        if self._attempt is None or self.ended:
            return None
        if self._credit < PART_BYTES_MAX or (self._pipe is not None and self._pipe.paused):
            # The node may be waiting for credit: it is the caller who is slow.
            self._clock.rest(now)
            return None
        return self._attempt.stream if self._clock.stalled(now) else None

    def failed(self, effect: do.FailRequest) -> None:
        """The last attempt failed, and there will be no other: what has been said ends there."""
        if self._said:
            self._give_up(stream_lost(effect.failure.message))
        else:
            super().failed(effect)

    # --- what a node says ----------------------------------------------------------------------------

    def _breach(self, piece: link_pb2.Piece, size: int) -> str:
        if not (self.cursor.index or piece.tokens or piece.more or piece.HasField("end")):
            # It would bind the caller to what cannot be continued: nothing of it is counted.
            return "it spoke before its first token"
        return super()._breach(piece, size)

    def _hold_part(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        # A long event over a slow line is no stall.
        self._clock.rest(self._tell.now())
        super()._hold_part(stream, piece, part)

    def _take(self, piece: link_pb2.Piece, part: bytes, first: bool) -> None:
        now = self._tell.now()
        self._clock.token(now)
        if first:
            self._first_piece(piece, now)
        self._heard_at, self._said = now, True
        delivered = self._delivered
        if delivered.ids_known and not (delivered.take(piece) and self._hold_ids()):
            assert self._attempt is not None
            self._forget_ids(self._attempt.stream)
        if part:
            self._pending.append(part)
        if not self._flush_due and self._pipe is not None:
            # Once per caller and tick, however many pieces came.
            self._flush_due = True
            self.shared.end_of_tick.add(self._flush)

    def _first_piece(self, piece: link_pb2.Piece, now: float) -> None:
        attempt = self._attempt
        assert attempt is not None
        self._tell.first_piece(attempt.stream, piece.first_index)
        if attempt.resume is not None:
            self._tell.continued(attempt, now - self._heard_at)
        self._wake.set()

    def _unread_bytes(self) -> int:
        return self._unread + sum(map(len, self._pending))

    def _last_token(self, stream: StreamId) -> None:
        self._clock.stop()
        self.shared.paces.learn(self.call.envelope.model, self._clock)
        self._tell.last_token(stream, self.cursor.index)

    def _why_not_whole(self, finish: link_pb2.Finish) -> str:
        others = any(end.index != self.call.choice_index for end in finish.choices)
        return "it ended another answer than it was asked for" if others else ""

    def _complete(self, finish: link_pb2.Finish) -> None:
        call = self.call
        self._pending.append(call.dialect.ending(call.envelope, finish, call.include_usage) + sse.DONE)

    # --- to the caller -------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what is ready, unless the caller reads too slowly: then the handler waits for it."""
        self._flush_due = False
        pipe = self._pipe
        if pipe is None or not self._pending:
            return
        if pipe.paused:
            self._wake.set()
            return
        parts, self._pending = self._pending, []
        try:
            pipe.send(parts)
        except CallerGone:
            # This may run as a callback, where nobody would hear it: the handler raises it.
            self._caller_gone = True
            self._wake.set()
            return
        self._written_at = self._tell.now()
        size = sum(map(len, parts))
        if pipe.paused:
            self._unread += size
            self._wake.set()
        else:
            self._passed_on(size)

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer as pieces come. Raises ApiError before the first byte, and CallerGone."""
        await self.opened()
        if self.error is not None and not self._pending:
            raise self.error
        pipe = await ChunkPipe.open(request, headers() | sse.HEADERS, self.shared.patience.caller_stall)
        try:
            await self.pump(pipe)
        except ApiError as error:
            pipe.send([error_event(error, self.call.request_id)])
        return await pipe.finish()

    async def pump(self, pipe: ChunkPipe) -> None:
        """Write to an open response until the answer is out. Raises ApiError where it could not go on, CallerGone."""
        self._pipe = pipe
        try:
            while True:
                self._wake.clear()
                await self._drained(pipe)
                self._flush()
                if self._caller_gone:
                    raise CallerGone
                if self.ended and not self._pending:
                    break
                await self._idle(pipe)
        finally:
            # Whoever ends the response writes its last words: nothing that still comes may follow them.
            self._pipe = None
        if self.error is not None:
            await self._drained(pipe)
            raise self.error

    async def opened(self) -> None:
        """Until there is a first piece, an end, or headers are due."""
        try:
            async with asyncio.timeout(self.shared.patience.headers_after):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _drained(self, pipe: ChunkPipe) -> None:
        """Wait for a slow caller, then let its node go on."""
        await pipe.drained()
        if self._unread:
            unread, self._unread = self._unread, 0
            self._passed_on(unread)

    async def _idle(self, pipe: ChunkPipe) -> None:
        """Until something needs the handler; a comment when the answer is slow."""
        try:
            async with asyncio.timeout(self.shared.patience.keep_alive):
                await self._wake.wait()
        except TimeoutError:
            now = self._tell.now()
            if now - self._written_at >= self.shared.patience.keep_alive:
                pipe.send([sse.KEEP_ALIVE])
                self._written_at = now
