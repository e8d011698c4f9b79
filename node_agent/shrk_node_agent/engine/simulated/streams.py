"""Server-sent events written straight to the connection: one write a token, in the tick of its step."""

from __future__ import annotations

from aiohttp import web

from shrk_node_agent.engine.simulated.sequences import Token

#: Beyond this backlog a sequence stands still until its reader has caught up.
BACKLOG_BYTES_MAX = 256 * 1024

DONE = b"data: [DONE]\n\n"

_END = b"\n\n"


def marred(events: bytes, token: Token) -> bytes:
    """What one token makes visible, as the faults that strike it leave it: its last event cut off, or told twice."""
    if not events or not (token.garbled or token.repeated):
        return events
    before = events.rfind(_END, 0, -len(_END))
    begin = 0 if before < 0 else before + len(_END)
    event = events[begin:]
    if token.garbled:
        event = event[: len(event) // 2] + _END
    return events[:begin] + event * (2 if token.repeated else 1)


class EventStream:
    """One streamed response.

    aiohttp's own `write` is a coroutine that may give way to other tasks; here all streams of a step must
    be written at once, so chunks go to the transport with their framing.
    """

    def __init__(self, request: web.Request) -> None:
        """Nothing is sent before `open`."""
        self._request = request
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        self._response.enable_chunked_encoding()

    async def open(self) -> None:
        """Send the headers."""
        await self._response.prepare(self._request)

    def blocked(self) -> bool:
        """The reader is behind by more than BACKLOG_BYTES_MAX."""
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() > BACKLOG_BYTES_MAX

    def send(self, events: bytes) -> None:
        """Write now; without effect where the caller has gone, whose request is cancelled by then."""
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(events), events))

    async def close(self) -> web.StreamResponse:
        """End the body."""
        await self._response.write_eof()
        return self._response
