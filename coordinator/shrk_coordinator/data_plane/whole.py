"""Answers of which nothing is delivered before they are whole: a lost node costs such a caller only time.

`WholeRelay` answers in one JSON document. `BufferedRelay` answers a stream that was asked to be held back: for
structured output, where what was begun on one kind of GPU cannot always be continued on another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from shrk_contract.terms import ANSWER_BYTES_MAX, PART_BYTES_MAX
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.data_plane.chunk_pipe import ChunkPipe
from shrk_coordinator.data_plane.errors import error_event
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Relay, Shared
from shrk_coordinator.errors import answer_too_large, overloaded
from shrk_coordinator.state.events import StreamId


class _HeldRelay(Relay):
    """Holds the answer until it is complete."""

    def __init__(self, call: Call, shared: Shared) -> None:
        super().__init__(call, shared)
        self._parts: list[bytes] = []
        self._held = 0

    def _start_over(self) -> None:
        super()._start_over()
        self._drop()

    def let_go(self) -> None:
        """Nothing is held any more."""
        super().let_go()
        self._drop()

    def _drop(self) -> None:
        self.shared.held.give_back(self._held)
        self._parts.clear()
        self._held = 0

    def _hold_part(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        # Nothing of this answer is said before its end: half an event is held and counted like all else.
        self._take(piece, part, False)

    def _take(self, piece: link_pb2.Piece, part: bytes, first: bool) -> None:
        if self._held + len(part) > ANSWER_BYTES_MAX:
            self._give_up(answer_too_large(ANSWER_BYTES_MAX))
        elif not self.shared.held.take(len(part)):
            self._give_up(overloaded())
        elif part:
            self._held += len(part)
            self._parts.append(part)
            self._passed_on(len(part))

    async def _send_held(self, pipe: ChunkPipe) -> None:
        for part in self._parts:
            pipe.send([part])
            await pipe.drained()


class WholeRelay(_HeldRelay):
    """An answer in one piece."""

    def _why_not_whole(self, finish: link_pb2.Finish) -> str:
        return "" if self._held else "it ended an answer of which it had sent nothing"

    def _complete(self, finish: link_pb2.Finish) -> None:
        """Nothing is left to add: the engine's own JSON is the answer."""

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer when the answer is whole. Raises ApiError."""
        await self._wake.wait()
        if self.error is not None:
            raise self.error
        if self._held <= PART_BYTES_MAX:
            return web.Response(body=b"".join(self._parts), content_type="application/json", headers=headers())
        # aiohttp would wait for ever for a caller that does not take a large answer.
        shown = headers() | {"Content-Type": "application/json", "Content-Length": str(self._held)}
        pipe = await ChunkPipe.open(request, shown, self.shared.patience.caller_stall)
        await self._send_held(pipe)
        return await pipe.finish()


class BufferedRelay(_HeldRelay):
    """A stream that begins when its answer is whole; until then only signs of life go out."""

    def _complete(self, finish: link_pb2.Finish) -> None:
        call = self.call
        self._parts.append(call.dialect.ending(call.envelope, finish, call.include_usage) + sse.DONE)

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer when the answer is whole. Raises ApiError before the first byte, and CallerGone."""
        patience = self.shared.patience
        if await self._ended_within(patience.headers_after) and self.error is not None:
            raise self.error
        pipe = await ChunkPipe.open(request, headers() | sse.HEADERS, patience.caller_stall)
        while not await self._ended_within(patience.keep_alive):
            await pipe.drained()
            pipe.send([sse.KEEP_ALIVE])
        if self.error is not None:
            pipe.send([error_event(self.error, self.call.request_id)])
        else:
            await self._send_held(pipe)
        return await pipe.finish()

    async def _ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True
