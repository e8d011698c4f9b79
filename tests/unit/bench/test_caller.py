"""The load generator's connection: what it counts, and what it refuses to call a whole answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bench.caller import Caller, Tally
from bench.engine import CHUNKS, STAMP_DIGITS, STAMPS_AFTER

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
BODY_END = b"0\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


def event(ordered: int, emitted: int) -> bytes:
    return b'data: {"choices":[{' + STAMPS_AFTER + b'%016x%016x"}}]}\n\n' % (ordered, emitted)


def framed(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def stream(ordered: int, emitted: list[int]) -> bytes:
    return HEAD + b"".join(framed(event(ordered, at)) for at in emitted) + framed(DONE) + BODY_END


def asking(near: socket.socket, tally: Tally, streaming: bool = True) -> Caller:
    caller = Caller(near, b"GET / HTTP/1.1\r\n\r\n", streaming, tally)
    tally.measuring = True
    caller.ask()
    tally.stopping = True  # one answer is enough
    return caller


def test_stamps_are_as_long_as_the_engine_writes_them() -> None:
    assert len(b"%016x" % (1 << 63)) == STAMP_DIGITS


def test_a_whole_stream_is_counted_once(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    caller.take(stream(0, [0] * CHUNKS), arrived=1)
    assert (tally.requests, tally.chunks, tally.errors, caller.idle) == (1, CHUNKS, [], True)


def test_a_stream_cut_into_single_bytes_counts_the_same(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    for byte in stream(0, [0] * CHUNKS):
        caller.take(bytes([byte]), arrived=1)
    assert (tally.requests, tally.chunks, tally.errors, caller.idle) == (1, CHUNKS, [], True)


def test_a_stream_with_a_chunk_too_few_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    asking(pair[0], tally).take(stream(0, [0] * (CHUNKS - 1)), arrived=1)
    assert tally.errors == [f"a stream ended after {CHUNKS - 1} of {CHUNKS} chunks"]


def test_a_stream_without_done_is_not_over(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    caller.take(HEAD + framed(event(0, 0)) + BODY_END, arrived=1)
    assert (tally.requests, caller.idle) == (0, False)


def test_the_gap_added_is_the_change_of_the_delay_between_two_tokens(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    caller.take(HEAD + framed(event(0, 1_000)), arrived=1_300)
    caller.take(framed(event(0, 2_000)), arrived=2_700)
    assert list(tally.gaps) == [400]


def test_the_first_token_is_charged_the_ways_there_and_back_but_not_the_engines_own_time(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    sent = caller.sent
    caller.take(HEAD + framed(event(sent + 50, sent + 9_050)), arrived=sent + 9_080)
    assert list(tally.first_tokens) == [50 + 30]


def test_a_refusal_is_an_error_with_its_words(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    caller = asking(pair[0], tally)
    caller.take(b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n{"error"}', arrived=1)
    assert "503" in tally.errors[0]
    assert caller.idle


def test_a_whole_answer_waits_for_its_declared_length(pair: tuple[socket.socket, socket.socket]) -> None:
    tally = Tally()
    caller = asking(pair[0], tally, streaming=False)
    caller.take(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{'a': {", arrived=1)
    assert tally.requests == 0
    caller.take(b"}}", arrived=2)
    assert (tally.requests, len(tally.latencies), tally.errors) == (1, 1, [])


def test_a_connection_closed_in_the_middle_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    tally = Tally()
    caller = asking(near, tally)
    far.recv(1_000)
    far.close()
    near.setblocking(True)
    caller.readable()
    assert tally.errors == ["the connection was closed after 0 chunks"]
