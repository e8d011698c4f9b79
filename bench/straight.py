"""No gateway: the mock engine behind the least HTTP server that works. What the load generator gets here is its own
ceiling, and the floor that a coordinator's latency is compared with.

Prints its port, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import cast

import uvloop

from bench.engine import MockEngine
from shrk_contract.service import running
from shrk_contract.terms import Endpoint, Rejection
from shrk_node_agent.attempts import Envelope, Failed, Finished, Order, Piece

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ENDING = (
    b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}'
    b"\n\ndata: [DONE]\n\n"
)
_serials = itertools.count(1)


class _Sink:
    """Writes an answer to the caller's connection."""

    def __init__(self, transport: asyncio.Transport, streaming: bool) -> None:
        self._transport = transport
        self._streaming = streaming
        if streaming:
            transport.write(_STREAM_HEAD)

    def accept(self) -> None:
        """Nobody is told."""

    def prompt(self, token_ids: Sequence[int]) -> None:
        """Nobody is told."""

    async def piece(self, piece: Piece) -> None:
        """One write per chunk."""
        part = piece.part
        if self._streaming:
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(part)
            self._transport.write(head + part)

    def finish(self, finished: Finished) -> None:
        """The end of the stream."""
        if self._streaming:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_ENDING), _ENDING))

    def reject(self, reason: Rejection, message: str) -> None:
        """The mock engine takes everything."""
        raise AssertionError(message)

    def fail(self, failed: Failed) -> None:
        """The mock engine never fails."""
        raise AssertionError(failed.message)


class Server(asyncio.Protocol):
    """One caller's connection, one request at a time."""

    def __init__(self, engine: MockEngine) -> None:
        self._engine = engine
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._key = (0, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller connected."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A caller left."""
        self._engine.cancelled(self._key)

    def data_received(self, data: bytes) -> None:
        """Wait for a whole request, then give it to the engine."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        assert self._transport is not None
        asked = json.loads(body)
        self._key = (0, next(_serials))
        envelope = Envelope(f"chatcmpl-{self._key[1]:032x}", int(time.time()), asked["model"], "")
        streaming = bool(asked.get("stream"))
        order = Order(Endpoint.CHAT_COMPLETIONS, asked["model"], streaming, envelope, body)
        self._engine.ordered(self._key, order, _Sink(self._transport, streaming))


async def serve() -> None:
    """Listen on any port of this machine until stdin ends."""
    engine = MockEngine(phase=0.0)
    server = await asyncio.get_running_loop().create_server(lambda: Server(engine), "127.0.0.1", 0, backlog=1024)
    async with server, running(engine.run(), "engine"):
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())
