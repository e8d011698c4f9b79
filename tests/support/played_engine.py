"""An engine whose every answer a test plays by hand, and a sink that keeps what an attempt came to."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from shrk_contract.terms import Rejection
from shrk_node_agent.attempts import Credit, Failed, Finished, Piece

#: Answers one request.
Play = Callable[[web.Request], Awaitable[web.StreamResponse]]

DONE = b"data: [DONE]\n\n"


@dataclass
class PlayedEngine:
    """A running engine."""

    socket: Path
    runner: web.AppRunner
    #: The bodies it was sent.
    asked: list[dict[str, Any]] = field(default_factory=list)

    def connections(self) -> int:
        """Open ones."""
        assert self.runner.server is not None
        return len(self.runner.server.connections)


@asynccontextmanager
async def played_engine(play: Play) -> AsyncIterator[PlayedEngine]:
    """Serve in this loop; `play` is asked for every answer, and cancelled when its caller leaves."""
    home = Path(tempfile.mkdtemp(prefix="shrk-t-"))  # Short: a unix socket's path holds 107 bytes.

    async def answer(request: web.Request) -> web.StreamResponse:
        engine.asked.append(json.loads(await request.read() or b"{}"))
        return await play(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    engine = PlayedEngine(home / "engine.sock", runner)
    try:
        await runner.setup()
        await web.UnixSite(runner, str(engine.socket)).start()
        yield engine
    finally:
        await runner.cleanup()
        shutil.rmtree(home)


def event(**fields: Any) -> bytes:
    """One event of a stream, in an engine's own envelope."""
    return b"data: " + json.dumps({"id": "engine", "created": 1, "model": "engine", **fields}).encode() + b"\n\n"


def chat_event(content: str | None = None, *ids: int, end: str | None = None, **delta: Any) -> bytes:
    """One event of a streamed chat of one choice."""
    said = delta if content is None else {"content": content, **delta}
    choice = {"index": 0, "delta": said, "finish_reason": end} | ({"token_ids": [*ids]} if ids else {})
    return event(choices=[choice])


async def send_parts(request: web.Request, *parts: bytes, status: int = 200) -> web.StreamResponse:
    """Begin an answer, and send each part so that it is read by itself; the answer is left open."""
    response = web.StreamResponse(status=status)
    await response.prepare(request)
    for part in parts:
        await response.write(part)
        for _ in range(10):  # turns of the loop that both ends run in
            await asyncio.sleep(0)
    return response


def streaming(*parts: bytes, status: int = 200) -> Play:
    """Plays one whole answer in parts."""

    async def play(request: web.Request) -> web.StreamResponse:
        response = await send_parts(request, *parts, status=status)
        await response.write_eof()
        return response

    return play


def whole(answer: Any, status: int = 200) -> Play:
    """Plays one answer in JSON."""

    async def play(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer, status=status)

    return play


@dataclass
class Heard:
    """Stands for the link: what one attempt told its coordinator."""

    credit: Credit | None = None
    accepted: bool = False
    rejected: Rejection | None = None
    #: What was told of the prompt before the first piece.
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    first_piece: asyncio.Event = field(default_factory=asyncio.Event)
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def part(self) -> bytes:
        """All bytes of the answer."""
        return b"".join(piece.part for piece in self.pieces)

    def accept(self) -> None:
        """The attempt is taken on."""
        self.accepted = True

    def reject(self, reason: Rejection, message: str) -> None:
        """The attempt is not taken on."""
        self.rejected = reason

    def prompt(self, token_ids: Sequence[int]) -> None:
        """Keep it."""
        assert not self.pieces, "the prompt is told before the first piece"
        self.prompts.append(tuple(token_ids))

    async def piece(self, piece: Piece) -> None:
        """Keep it."""
        if self.credit is not None:
            await self.credit.spend(len(piece.part))
        self.pieces.append(replace(piece, token_ids=tuple(piece.token_ids)))
        self.first_piece.set()

    def finish(self, finished: Finished) -> None:
        """The answer is whole."""
        self._end()
        self.finished = finished

    def fail(self, failed: Failed) -> None:
        """The answer will not become whole."""
        self._end()
        self.failed = failed

    def _end(self) -> None:
        assert self.finished is None and self.failed is None, "an attempt ends once"  # noqa: PT018  # one fact
