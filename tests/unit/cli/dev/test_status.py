"""Following a node through its control socket, also past the death of its agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shrk_cli.dev.status import NodeStatus, follow, parse

DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "revision": 7,
    "pid": 42,
    "node_id": "node_x",
    "name": "dev-1",
    "state": "loading",
    "reason": "",
    "link": "connected",
    "link_reason": "",
    "engines": [
        {
            "id": "e",
            "model": "shark-tiny",
            "state": "loading",
            "reason": "",
            "detail": "loading weights",
            "progress": None,
            "elapsed_seconds": 1.5,
            "in_flight": 0,
            "slots": 16,
            "pids": [43, 44],
            "tail": [],
        }
    ],
}


class Agent:
    """A control socket that answers with whatever revision comes next."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.revisions: asyncio.Queue[int] = asyncio.Queue()
        self.asked: list[dict[str, str]] = []

    async def __aenter__(self) -> Agent:
        app = web.Application()
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _status(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        revision = await self.revisions.get()
        return web.json_response(DOCUMENT | {"revision": revision, "pid": 1000 + revision})


async def until_its_death_is_noticed(socket: Path) -> None:
    """Hang up on whoever calls until they have called a third time: the first two may be one poll and its repeat."""
    calls = 0
    third = asyncio.Event()

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()
        if calls == 3:
            third.set()

    async with await asyncio.start_unix_server(hang_up, str(socket)):
        await third.wait()


async def test_each_revision_is_asked_for_after_the_last_and_a_new_agent_from_the_start(tmp_path: Path) -> None:
    socket, seen = tmp_path / "control.sock", asyncio.Queue[NodeStatus]()
    following = asyncio.create_task(follow(socket, "dev-1", seen.put_nowait))
    try:
        async with Agent(socket) as first:
            first.revisions.put_nowait(5)
            assert (await seen.get()).pid == 1005
            first.revisions.put_nowait(6)
            assert (await seen.get()).pid == 1006
            assert [query.get("after") for query in first.asked[:2]] == [None, "5"]
        await until_its_death_is_noticed(socket)
        async with Agent(socket) as second:
            second.revisions.put_nowait(1)
            assert (await seen.get()).pid == 1001
            assert "after" not in second.asked[0]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_a_status_is_read_field_by_field() -> None:
    status = parse(DOCUMENT, "dev-1")
    assert (status.node_id, status.pid, status.link, status.state) == ("node_x", 42, "connected", "loading")
    assert status.engines[0].pids == (43, 44)
    assert not status.engines[0].serving


def test_another_schema_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="status schema 2"):
        parse(DOCUMENT | {"schema": 2}, "dev-1")
