"""The agent's control socket: how commands on the same machine ask it things. Mode 0600, in the state folder."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from shrk_node_agent.errors import AgentCannotRun

#: A long poll ends at the latest then; whoever waits asks again.
WAIT_SECONDS_MAX = 30.0
#: The kernel's limit for the path of a unix socket.
SOCKET_PATH_BYTES_MAX = 107


class ControlSocket:
    """Serves `GET /status`, at once or when something changes, and what it is given besides."""

    def __init__(self, path: Path, status: Callable[[], dict[str, Any]], routes: Sequence[web.RouteDef] = ()) -> None:
        self._path = path
        self._status = status
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        app = web.Application()
        app.router.add_get("/status", self._get_status)
        app.router.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)

    async def open(self) -> None:
        """Start to serve. Raises AgentCannotRun where the path does not fit."""
        if len(os.fsencode(self._path)) > SOCKET_PATH_BYTES_MAX:
            raise AgentCannotRun(
                f"state_dir is too long: {self._path} has {len(os.fsencode(self._path))} bytes, and a unix socket's "
                f"path may have {SOCKET_PATH_BYTES_MAX}. Choose a shorter one: --state-dir DIR"
            )
        self._path.unlink(missing_ok=True)
        await self._runner.setup()
        self._listening = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._listening.bind(str(self._path))
        finally:
            os.umask(before)
        await web.SockSite(self._runner, self._listening).start()

    async def close(self) -> None:
        """Stop serving and remove the socket."""
        if self._listening is not None:
            # Who has been accepted gets a transport before the server closes: CPython 3.11 would leave that connection
            # open and unread, and who asks would wait for its own patience to end.
            asyncio.get_running_loop().remove_reader(self._listening)
            await asyncio.sleep(0)
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    def changed(self) -> None:
        """Wake everybody who waits for a change."""
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _get_status(self, request: web.Request) -> web.Response:
        try:
            after = int(request.query.get("after", -1))
            wait = min(float(request.query.get("wait_seconds", 0)), WAIT_SECONDS_MAX)
        except ValueError:
            return _json({"error": "after and wait_seconds must be numbers"}, 400)
        status = self._status()
        if wait > 0 and status["revision"] <= after:
            try:
                async with asyncio.timeout(wait), self._changed:
                    await self._changed.wait_for(lambda: self._status()["revision"] > after)
            except TimeoutError:
                pass  # nothing changed: say so
            status = self._status()
        return _json(status, 200)


def _json(payload: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(payload), content_type="application/json", status=status)
