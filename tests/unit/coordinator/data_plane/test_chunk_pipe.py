"""Ready bytes straight to a caller's transport. Fails when an aiohttp upgrade changes what `ChunkPipe` relies on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from shrk_coordinator.data_plane.chunk_pipe import CallerGone, ChunkPipe

Use = Callable[[ChunkPipe], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def a_server(use: Use, stall_seconds: float = 60.0) -> AsyncIterator[int]:
    """Serves one pipe to every caller; yields the port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await use(await ChunkPipe.open(request, {"X-Ours": "yes"}, stall_seconds))

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def raw(port: int, request: bytes) -> bytes:
    """What comes back on a connection, byte by byte, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def two_parts(pipe: ChunkPipe) -> web.StreamResponse:
    assert pipe.send([b"one ", b"", b"two"]) > 0
    assert pipe.send([]) == pipe.send([b""]) == 0
    pipe.send([b" three"])
    return await pipe.finish()


async def test_many_parts_leave_as_one_chunk_and_the_connection_stays_usable() -> None:
    async with a_server(two_parts) as port:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await raw(port, request + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    head, body, *_ = answer.split(b"\r\n\r\n", 1)
    assert b"X-Ours: yes" in head
    assert body.startswith(b"7\r\none two\r\n6\r\n three\r\n0\r\n\r\nHTTP/1.1 200 OK")


async def test_an_http_1_0_caller_gets_no_chunks_and_the_end_of_the_connection() -> None:
    async with a_server(two_parts) as port:
        answer = await raw(port, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"\r\n\r\none two three")


async def test_a_head_request_gets_no_body() -> None:
    async with a_server(two_parts) as port:
        answer = await raw(port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"one two" not in answer


async def test_a_cut_answer_is_seen_as_broken_not_as_short() -> None:
    async def cut(pipe: ChunkPipe) -> web.StreamResponse:
        pipe.send([b"half"])
        return pipe.cut()

    async with a_server(cut) as port, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                await answer.read()


async def test_an_exception_in_the_middle_does_not_write_a_second_answer_into_the_body() -> None:
    async def fail(pipe: ChunkPipe) -> web.StreamResponse:
        pipe.send([b"half"])
        raise RuntimeError("planted")

    async with a_server(fail) as port:
        answer = await raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_caller_that_does_not_read_pauses_the_pipe_and_reading_resumes_it() -> None:
    paused, drained = asyncio.Event(), asyncio.Event()

    async def flood(pipe: ChunkPipe) -> web.StreamResponse:
        while not pipe.paused:
            pipe.send([b"x" * 65536])
        paused.set()
        await pipe.drained()
        drained.set()
        return await pipe.finish()

    async with a_server(flood) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await paused.wait()
        assert not drained.is_set()
        while await reader.read(1 << 20):
            pass
        assert drained.is_set()
        writer.close()


async def flooded(pipe: ChunkPipe) -> web.StreamResponse:
    """Write until the caller's buffers are full, then end the answer."""
    while not pipe.paused:
        pipe.send([b"x" * 65536])
    return await pipe.finish()


async def test_a_caller_that_stops_reading_at_the_very_end_is_given_up_too() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def use(pipe: ChunkPipe) -> web.StreamResponse:
        try:
            return await flooded(pipe)
        except CallerGone as error:
            ended.set_result(error)
            raise

    async with a_server(use, stall_seconds=0.05) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert isinstance(await ended, CallerGone)
        writer.close()


async def test_a_caller_that_reads_slowly_but_reads_is_not_given_up() -> None:
    async with a_server(flooded, stall_seconds=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while part := await reader.read(1 << 18):
            received = received[-10:] + part
            await asyncio.sleep(0.01)
        assert received.endswith(b"0\r\n\r\n")
        writer.close()


async def test_writing_to_a_caller_that_is_gone_says_so() -> None:
    said = asyncio.get_running_loop().create_future()

    async def write_on(pipe: ChunkPipe) -> web.StreamResponse:
        try:
            while True:
                pipe.send([b"x" * 1024])
                await asyncio.sleep(0)
        except CallerGone as error:
            said.set_result(error)
            raise
        except asyncio.CancelledError:
            with pytest.raises(CallerGone):
                pipe.send([b"late"])
            said.set_result(None)
            raise

    async with a_server(write_on) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0)
        writer.transport.abort()
        await said
