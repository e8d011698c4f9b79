"""Ready bytes straight to a caller's transport: one write for all that became ready in a tick.

aiohttp's own `StreamResponse.write` costs about seven times as much per piece. This module is the only one that
uses private names of aiohttp (`_payload_writer`, `_compress`); `tests/unit/coordinator/data_plane/test_chunk_pipe.py`
fails when an upgrade changes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web
from aiohttp.http import HttpVersion11


class CallerGone(ConnectionError):
    """The caller closed its connection."""


class ChunkPipe:
    """An open response. `send` never blocks; watch `paused` and await `drained`."""

    __slots__ = ("_chunked", "_mute", "_protocol", "_response", "_stall_seconds", "_writer")

    def __init__(self, request: web.Request, response: web.StreamResponse, stall_seconds: float) -> None:
        writer = response._payload_writer
        assert writer is not None, "the response is prepared"
        assert getattr(writer, "_compress", None) is None, "a compressed body cannot take ready chunks"
        self._response = response
        self._stall_seconds = stall_seconds
        self._writer = writer
        self._protocol = request.protocol
        self._chunked = bool(getattr(writer, "chunked", False))  # False for HTTP/1.0: ends with the connection
        # add_get() routes HEAD too: a body would poison the connection for the next request.
        self._mute = request.method == "HEAD"

    @classmethod
    async def open(cls, request: web.Request, headers: dict[str, str], stall_seconds: float) -> ChunkPipe:
        """Send the status line and headers. A caller that then takes nothing for `stall_seconds` is given up.

        Raises CallerGone.
        """
        response = web.StreamResponse(status=200, headers=headers)
        if request.version < HttpVersion11:
            # Without framing an HTTP/1.0 keep-alive client would wait for ever.
            response.force_close()
        try:
            await response.prepare(request)
        except ConnectionError as error:
            raise CallerGone from error
        return cls(request, response, stall_seconds)

    @property
    def paused(self) -> bool:
        """Whether the caller reads more slowly than we write: its buffer is over the high-water mark."""
        return self._protocol.writing_paused

    def send(self, parts: Sequence[bytes]) -> int:
        """Write many parts at once, without waiting; returns the bytes written. Raises CallerGone."""
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise CallerGone
        if self._mute:
            return 0
        body = b"".join(parts)
        if not body:
            # An empty chunk would end the body.
            return 0
        out = b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body
        # aiohttp's own accounting: without it, an exception would write a second response into this body.
        self._writer.output_size += len(out)
        transport.write(out)
        return len(out)

    @property
    def backlog(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        transport = self._protocol.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    async def drained(self) -> None:
        """Return when the caller has read enough. Raises CallerGone, also for one that has stopped reading."""
        while self.paused:
            before = self.backlog
            try:
                async with asyncio.timeout(self._stall_seconds):
                    await self._writer.drain()
            except TimeoutError:
                # Slow is not gone: only a caller that took nothing in all this time is given up.
                if self.backlog >= before:
                    self.cut()
                    raise CallerGone from None
            except ConnectionError as error:
                raise CallerGone from error

    async def finish(self) -> web.StreamResponse:
        """End the body; the connection stays usable. Raises CallerGone."""
        await self.drained()
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._response.write_eof()
        except TimeoutError:
            self.cut()
            raise CallerGone from None
        except ConnectionError as error:
            raise CallerGone from error
        return self._response

    def cut(self) -> web.StreamResponse:
        """End the connection without ending the body, so that a caller sees a broken answer, not a short good one."""
        transport = self._protocol.transport
        if transport is not None:
            transport.abort()
        return self._response
