"""One caller's connection: asks, checks that the answer is whole, and asks again.

The kernel stamps what arrives (SO_TIMESTAMPNS), so that waiting for the generator's own turn counts as nobody's
delay. What is sent is stamped just before.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from array import array

from bench.engine import CHUNKS, STAMP_DIGITS, STAMPS_AFTER

#: One read; 256 streams under way fill a socket with a few events at a time.
READ_BYTES = 64 * 1024
#: Enough to see what goes wrong.
ERRORS_KEPT_MAX = 5

#: Linux numbers that Python's socket module does not name: 64-bit seconds and nanoseconds.
_SO_TIMESTAMPNS_NEW = 64
_TIMESPEC = struct.Struct("qq")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_DONE = b"data: [DONE]\n\n"
_BODY_END = b"\r\n0\r\n\r\n"


class Tally:
    """What all connections count together. Times are nanoseconds."""

    def __init__(self) -> None:
        self.measuring = False
        self.stopping = False
        self.requests = 0
        self.chunks = 0
        self.latencies = array("q")
        self.first_tokens = array("q")
        self.gaps = array("q")
        self.errors: list[str] = []

    def failed(self, what: str) -> None:
        """Something was not as it must be."""
        if len(self.errors) < ERRORS_KEPT_MAX:
            self.errors.append(what)


class Caller:
    """One keep-alive connection. Call `readable` when its socket is."""

    def __init__(self, connection: socket.socket, request: bytes, streaming: bool, tally: Tally) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW, 1)
        self.connection = connection
        #: No answer is under way.
        self.idle = True
        self._request = request
        self._streaming = streaming
        self._tally = tally
        self._buffer = b""
        self._in_body = False
        self._done = False
        #: When the request under way was sent, in nanoseconds.
        self.sent = 0
        self._chunks = 0
        self._lag = 0

    def ask(self) -> None:
        """Send the next request, unless the time is up."""
        self.idle = self._tally.stopping
        if self.idle:
            return
        self._buffer, self._in_body, self._done, self._chunks = b"", False, False, 0
        self.sent = time.time_ns()
        # An empty send buffer takes a request of a few hundred bytes whole.
        if self.connection.send(self._request) != len(self._request):
            self._broken("a request could not be sent at once")

    def readable(self) -> None:
        """Take in what arrived."""
        try:
            part, ancillary, _, _ = self.connection.recvmsg(READ_BYTES, _ANCILLARY_BYTES)
        except ConnectionError as error:
            self._broken(f"the connection broke after {self._chunks} chunks: {error}")
            return
        if not part:
            self._broken(f"the connection was closed after {self._chunks} chunks")
            return
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            self.take(part, seconds * 1_000_000_000 + nanoseconds)
        else:
            # The kernel begins to stamp a moment after the first socket has asked for it.
            self.take(part, time.time_ns())

    def take(self, part: bytes, arrived: int) -> None:
        """Act on a part of an answer; `arrived` in nanoseconds of the system's clock."""
        self._buffer = self._buffer + part if self._buffer else part
        if not self._streaming:
            self._whole(arrived)
        elif self._in_body or self._head():
            self._events(arrived)

    def _whole(self, arrived: int) -> None:
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or length is None or len(body) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 200 ") or not body.endswith(b"}}"):
            self._broken(self._buffer[:600].decode(errors="replace"))
            return
        tally = self._tally
        tally.requests += 1
        if tally.measuring:
            tally.latencies.append(arrived - self.sent)
        self.ask()

    def _head(self) -> bool:
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            self._broken(self._buffer[:600].decode(errors="replace"))
            return False
        self._in_body, self._buffer = True, body
        return True

    def _events(self, arrived: int) -> None:
        # Only whole events: a chunk of HTTP, or a packet, may end anywhere.
        last = self._buffer.rfind(b"\n\n")
        if last >= 0:
            events, self._buffer = self._buffer[: last + 2], self._buffer[last + 2 :]
            self._count(arrived, events)
            self._done = events.endswith(_DONE)
        if self._done and self._buffer == _BODY_END:
            self._ended()

    def _count(self, arrived: int, events: bytes) -> None:
        at = events.find(STAMPS_AFTER)
        while at >= 0:
            at += len(STAMPS_AFTER)
            self._chunk(arrived, events[at : at + 2 * STAMP_DIGITS])
            at = events.find(STAMPS_AFTER, at)

    def _chunk(self, arrived: int, stamps: bytes) -> None:
        lag = arrived - int(stamps[STAMP_DIGITS:], 16)
        tally = self._tally
        tally.chunks += 1
        if tally.measuring:
            if self._chunks:
                tally.gaps.append(lag - self._lag)
            else:
                reached_engine = int(stamps[:STAMP_DIGITS], 16)
                tally.first_tokens.append(reached_engine - self.sent + lag)
        self._lag = lag
        self._chunks += 1

    def _ended(self) -> None:
        if self._chunks != CHUNKS:
            self._tally.failed(f"a stream ended after {self._chunks} of {CHUNKS} chunks")
        self._tally.requests += 1
        self.ask()

    def _broken(self, what: str) -> None:
        """Nothing more is asked on this connection."""
        self._tally.failed(what)
        self.idle = True
        self.connection.close()
