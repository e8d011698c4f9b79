"""The relay: one caller's request, fed by the pieces of one attempt after another.

Pieces come straight from a link (`piece`), are judged by the commit cursor, and leave with one write per caller
and tick. Credit goes back to the node as the caller's transport drains, so that a slow reader holds at most
CREDIT_BYTES here and stops nobody else.

    waiting --first piece / headers_after--> open --finish / failure--> ended
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from shrk_contract.convert import endpoint_to_wire
from shrk_contract.terms import CREDIT_BYTES, PART_BYTES_MAX, Fault
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.data_plane.chunk_pipe import CallerGone, ChunkPipe
from shrk_coordinator.data_plane.dialects import Dialect
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.data_plane.end_of_tick import EndOfTick
from shrk_coordinator.data_plane.errors import error_event, from_failure, from_refusal
from shrk_coordinator.data_plane.held import HeldBytes
from shrk_coordinator.errors import ApiError, answer_too_large, overloaded
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict
from shrk_coordinator.state.events import FailureDetail, StreamId
from shrk_coordinator.streams import Announcements, AttemptSink, LinkPort

#: Give credit back in steps of this size: small enough to keep a node busy, large enough to be rare.
CREDIT_STEP_BYTES = CREDIT_BYTES // 4
#: A whole answer is held here until it is complete, so that it can still come from another node.
ANSWER_BYTES_MAX = 32 * 1024 * 1024

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    # nginx would hold the stream back until its buffer is full.
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the callers' side waits for what, in seconds."""

    #: Without a piece, headers go out after this long, so that proxies and clients see life.
    headers_after: float = 10.0
    #: Between two signs of life in a slow answer.
    keep_alive: float = 10.0
    #: A caller that takes nothing for this long has given up, and its node has better things to do.
    caller_stall: float = 60.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all relays of one coordinator share."""

    links: LinkPort
    tell: Announcements
    patience: Patience = Patience()
    end_of_tick: EndOfTick = field(default_factory=EndOfTick)
    held: HeldBytes = field(default_factory=HeldBytes)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that passed its checks."""

    request_id: bytes
    dialect: Dialect
    envelope: Envelope
    body: bytes
    streaming: bool
    include_usage: bool


class Relay:
    """What streamed and whole answers share: attempts, the cursor and credit."""

    def __init__(self, call: Call, shared: Shared) -> None:
        self.call = call
        self.shared = shared
        self.cursor = CommitCursor()
        self.error: ApiError | None = None
        self.ended = False
        #: The node whose answer this is, once there is one.
        self.node_id = ""
        self._attempt: do.StartAttempt | None = None
        self._links = shared.links
        self._tell = shared.tell
        self._wake = asyncio.Event()
        #: Bytes the current node may still send.
        self._credit = 0
        #: Bytes it sent that have been passed on, and not been given back as credit.
        self._spent = 0

    # --- the driver's port -------------------------------------------------------------------------

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        """An attempt starts: the start frame, and the rest of the body in parts."""
        if self._attempt is not None:
            self.cursor.withdraw(self._attempt.stream)
        self._attempt = effect
        self._credit, self._spent = CREDIT_BYTES, 0
        self.node_id = effect.node_id
        self.cursor.admit(effect.stream)
        call = self.call
        body = memoryview(call.body)
        start = link_pb2.Start(
            stream=effect.stream,
            request_id=call.request_id,
            attempt=effect.attempt,
            endpoint=endpoint_to_wire(call.dialect.endpoint),
            model=call.envelope.model,
            streaming=call.streaming,
            envelope=link_pb2.Envelope(
                id=call.envelope.id,
                created=call.envelope.created,
                model=call.envelope.model,
                tool_call_prefix=f"call_{call.request_id.hex()[:16]}_",
            ),
            body_bytes=len(body),
            body=bytes(body[:PART_BYTES_MAX]),
            credit_bytes=CREDIT_BYTES,
        )
        rest = range(PART_BYTES_MAX, len(body), PART_BYTES_MAX)
        parts = [link_pb2.Body(stream=effect.stream, data=bytes(body[i : i + PART_BYTES_MAX])) for i in rest]
        frame = link_pb2.CoordinatorFrame
        return [frame(start=start), *(frame(body=part) for part in parts)]

    def sink(self) -> AttemptSink:
        """Where this request's pieces go."""
        assert self._attempt is not None
        return _Sink(self, self._attempt.stream)

    def refused(self, effect: do.RefuseRequest) -> None:
        """No node takes it."""
        self._give_up(from_refusal(effect))

    def failed(self, effect: do.FailRequest) -> None:
        """The last attempt failed, and there will be no other."""
        self._give_up(from_failure(effect.failure))

    # --- what a node says ----------------------------------------------------------------------------

    def piece(self, stream: StreamId, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """Judge one piece; pass it on where it is the next."""
        if self.ended:
            return
        first = self.cursor.current is None
        verdict = self.cursor.accept(stream, piece.sequence, piece.first_index, piece.tokens, size, piece.text_digest)
        if verdict is PieceVerdict.STALE:
            return
        self._credit -= size
        if verdict is PieceVerdict.BROKEN:
            self._broken(stream, "it sent pieces out of order")
        elif self._credit < 0:
            self._broken(stream, "it sent more than it had credit for")
        else:
            self._take(part, first)

    def finish(self, stream: StreamId, finish: link_pb2.Finish) -> None:
        """The node says that the answer is whole."""
        if self.ended or self._attempt is None or stream != self._attempt.stream:
            return
        if finish.end_index != self.cursor.index:
            self._broken(stream, f"it ended at token {finish.end_index} and had sent {self.cursor.index}")
            return
        self._complete(finish)
        self.ended = True
        self._wake.set()
        self._tell.finished(stream)

    def _broken(self, stream: StreamId, what: str) -> None:
        failure = FailureDetail(Fault.NODE, f"the node broke the contract: {what}", code="node_broke_contract")
        self._tell.broken(stream, failure)

    def _passed_on(self, size: int) -> None:
        """Bytes have left for the caller: let the node send as many more, in steps."""
        self._spent += size
        if self._spent >= CREDIT_STEP_BYTES and self._attempt is not None and not self.ended:
            self._credit += self._spent
            self._links.credit(self._attempt.link, self._attempt.stream, self._spent)
            self._spent = 0

    def _give_up(self, error: ApiError) -> None:
        if not self.ended:
            self.error = error
            self.ended = True
            self._wake.set()

    def let_go(self) -> None:
        """Nothing is held any more; the end of every relay."""

    @abstractmethod
    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer the caller; `headers` is asked when they are due. Raises ApiError before the first byte, and
        CallerGone once nobody is left to answer."""

    @abstractmethod
    def _take(self, part: bytes, first: bool) -> None:
        """One accepted part of the answer."""

    @abstractmethod
    def _complete(self, finish: link_pb2.Finish) -> None:
        """The answer is whole."""


class _Sink:
    """Takes one attempt's frames to its relay, under the stream's own name."""

    __slots__ = ("_relay", "_stream")

    def __init__(self, relay: Relay, stream: StreamId) -> None:
        self._relay = relay
        self._stream = stream

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        self._relay.piece(self._stream, piece, size, part)

    def finish(self, finish: link_pb2.Finish) -> None:
        self._relay.finish(self._stream, finish)


class WholeRelay(Relay):
    """An answer in one piece. Nothing is delivered before its end, so a lost node costs only time."""

    def __init__(self, call: Call, shared: Shared) -> None:
        super().__init__(call, shared)
        self._parts: list[bytes] = []

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        """Start over: what an earlier attempt sent has reached nobody."""
        self.let_go()
        self.cursor = CommitCursor()
        return super().begin(effect)

    def let_go(self) -> None:
        """Drop what is held of the answer."""
        self.shared.held.give_back(sum(map(len, self._parts)))
        self._parts.clear()

    def _take(self, part: bytes, first: bool) -> None:
        if self.cursor.bytes > ANSWER_BYTES_MAX:
            self._give_up(answer_too_large(ANSWER_BYTES_MAX))
        elif not self.shared.held.take(len(part)):
            self._give_up(overloaded())
        elif part:
            self._parts.append(part)
            self._passed_on(len(part))

    def _complete(self, finish: link_pb2.Finish) -> None:
        """Nothing is left to add: the engine's own JSON is the answer."""

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer when the answer is whole. Raises ApiError."""
        await self._wake.wait()
        if self.error is not None:
            raise self.error
        if self.cursor.bytes <= PART_BYTES_MAX:
            return web.Response(body=b"".join(self._parts), content_type="application/json", headers=headers())
        # aiohttp would wait for ever for a caller that does not take a large answer.
        shown = headers() | {"Content-Type": "application/json", "Content-Length": str(self.cursor.bytes)}
        pipe = await ChunkPipe.open(request, shown, self.shared.patience.caller_stall)
        for part in self._parts:
            pipe.send([part])
            await pipe.drained()
        return await pipe.finish()


class StreamedRelay(Relay):
    """An answer as a stream of events. From its first piece on it can only go on or fail honestly."""

    def __init__(self, call: Call, shared: Shared) -> None:
        super().__init__(call, shared)
        self._pending: list[bytes] = []
        self._pipe: ChunkPipe | None = None
        self._flush_due = False
        self._caller_gone = False
        self._written_at = 0.0
        #: Bytes written that the caller has not read on: its node gets no credit for them yet.
        self._unread = 0
        #: Whether what was sent ends with an event's end: only there may something of ours be said.
        self._between_events = True

    def _take(self, part: bytes, first: bool) -> None:
        if part:
            self._pending.append(part)
            self._between_events = part.endswith(b"\n\n")
        if first:
            assert self._attempt is not None
            self._tell.first_piece(self._attempt.stream)
            self._wake.set()
        elif not self._flush_due and self._pipe is not None:
            # Once per caller and tick, however many pieces came.
            self._flush_due = True
            self.shared.end_of_tick.add(self._flush)

    def _complete(self, finish: link_pb2.Finish) -> None:
        call = self.call
        self._pending.append(call.dialect.ending(call.envelope, finish, call.include_usage) + sse.DONE)

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
        self._written_at = asyncio.get_running_loop().time()
        size = sum(map(len, parts))
        if pipe.paused:
            self._unread += size
            self._wake.set()
        else:
            self._passed_on(size)

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer as pieces come. Raises ApiError before the first byte, and CallerGone."""
        await self._opened()
        if self.error is not None and not self._pending:
            raise self.error
        pipe = await ChunkPipe.open(request, headers() | _STREAM_HEADERS, self.shared.patience.caller_stall)
        self._pipe = pipe
        while True:
            self._wake.clear()
            await self._drained(pipe)
            self._flush()
            if self._caller_gone:
                raise CallerGone
            if self.ended and not self._pending:
                break
            await self._idle(pipe)
        if self.error is not None:
            await self._drained(pipe)
            if not self._between_events:
                # Half an event is out: anything after it would be read as its other half.
                return pipe.cut()
            pipe.send([error_event(self.error, self.call.request_id)])
        return await pipe.finish()

    async def _opened(self) -> None:
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
            now = asyncio.get_running_loop().time()
            if self._between_events and now - self._written_at >= self.shared.patience.keep_alive:
                pipe.send([sse.KEEP_ALIVE])
                self._written_at = now
