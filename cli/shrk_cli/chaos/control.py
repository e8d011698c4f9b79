"""The control socket of a running proxy: small JSON over HTTP on a unix socket of mode 0600.

`GET /status`, `POST /faults {"direction", "changes"}`, `POST /cut {"how", "direction", "after_bytes"}`, `POST /heal`.
Each answers with the status that follows, or with 400 and `{"error": {"field", "what", "remedy"}}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from shrk_cli.chaos.faults import COUNT_BYTES_MAX, Cut, Direction, FaultRefused, check_count, choice
from shrk_cli.chaos.proxy import ChaosProxy
from shrk_cli.errors import Exit, Trouble

#: The version of the status document.
SCHEMA = 1
#: What steers a proxy fits into a line of text.
BODY_BYTES_MAX = 16 * 1024
#: The kernel's limit for the path of a unix socket.
SOCKET_PATH_BYTES_MAX = 107


@contextlib.asynccontextmanager
async def control_socket(proxy: ChaosProxy, path: Path) -> AsyncIterator[None]:
    """Serve until the end of the block, which removes the socket. Raises Trouble where the path cannot be had."""
    _make_way(path)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    steering = _Steering(proxy)
    app.router.add_get("/status", steering.get_status)
    app.router.add_post("/faults", steering.post_faults)
    app.router.add_post("/cut", steering.post_cut)
    app.router.add_post("/heal", steering.post_heal)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(path)).start()
        except OSError as error:
            raise _unusable(path, str(error)) from error
        finally:
            os.umask(before)
        ours = _inode(path)
        try:
            yield
        finally:
            if _inode(path) == ours:  # and not that of somebody who removed it and came after
                os.unlink(path)
    finally:
        await runner.cleanup()


def status(proxy: ChaosProxy) -> dict[str, Any]:
    """The proxy as a document: faults as they are set, counters since the start, in bytes."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "listen": str(proxy.listening),
        "to": str(proxy.to),
        "refuse": proxy.refusing,
        "connections": {"open": proxy.open_connections, "open_max": proxy.connections_max, **asdict(proxy.counts)},
    }
    for direction in (Direction.UP, Direction.DOWN):
        line = proxy.line(direction)
        document[direction.value] = {
            **asdict(line.faults),
            "passed_bytes": line.passed_bytes,
            "dropped_bytes": line.dropped_bytes,
            "held_bytes": line.held_bytes,
        }
    return document


def cut(proxy: ChaosProxy, how: Cut, direction: Direction | None = None, after_bytes: int | None = None) -> None:
    """Cut the proxy's connections. Without a direction: both; half-open, down. Raises FaultRefused."""
    if after_bytes is not None and how is not Cut.RST:
        raise FaultRefused("after_bytes", f"after_bytes goes with rst, not with {how}", "leave it out")
    if direction is not None and (how is Cut.REFUSE or (how is Cut.RST and after_bytes is None)):
        raise FaultRefused("direction", f"{how} is for whole connections", "leave the direction out")
    if direction is Direction.BOTH and how is Cut.HALF_OPEN:
        raise FaultRefused(
            "direction", "half-open in both directions is a black hole", "ask for black-hole, or up or down"
        )
    way = direction or Direction.BOTH
    match how:
        case Cut.RST:
            proxy.reset_after(after_bytes or 0, way)
        case Cut.CLOSE:
            proxy.close_connections(way)
        case Cut.BLACK_HOLE:
            proxy.black_hole(way)
        case Cut.HALF_OPEN:
            proxy.black_hole(direction or Direction.DOWN)
        case Cut.FREEZE:
            proxy.freeze(way)
        case Cut.REFUSE:
            proxy.refuse()


class _Steering:
    """The routes of one proxy."""

    def __init__(self, proxy: ChaosProxy) -> None:
        self._proxy = proxy

    async def get_status(self, _request: web.Request) -> web.Response:
        return web.json_response(status(self._proxy))

    async def post_faults(self, request: web.Request) -> web.Response:
        return await self._steer(request, ("direction", "changes"), self._set)

    async def post_cut(self, request: web.Request) -> web.Response:
        return await self._steer(request, ("how", "direction", "after_bytes"), self._cut)

    async def post_heal(self, request: web.Request) -> web.Response:
        return await self._steer(request, (), lambda _: self._proxy.heal())

    async def _steer(
        self, request: web.Request, fields: tuple[str, ...], act: Callable[[Mapping[str, Any]], None]
    ) -> web.Response:
        try:
            act(_object(await request.read(), fields))
        except FaultRefused as refused:
            error = {"field": refused.field, "what": refused.what, "remedy": refused.remedy}
            return web.json_response({"error": error}, status=400)
        return web.json_response(status(self._proxy))

    def _set(self, asked: Mapping[str, Any]) -> None:
        changes = asked.get("changes")
        if not isinstance(changes, dict) or not changes:
            raise FaultRefused("changes", "no changes are named", 'give an object such as {"delay_ms": 300}')
        self._proxy.set(choice(Direction, "direction", asked.get("direction", Direction.BOTH)), **changes)

    def _cut(self, asked: Mapping[str, Any]) -> None:
        direction, after_bytes = asked.get("direction"), asked.get("after_bytes")
        if after_bytes is not None:
            check_count("after_bytes", after_bytes, 0, COUNT_BYTES_MAX)
        cut(
            self._proxy,
            choice(Cut, "how", asked.get("how")),
            None if direction is None else choice(Direction, "direction", direction),
            after_bytes,
        )


def _object(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of a request. Raises FaultRefused for anything else, and for fields that nobody would look at."""
    try:
        asked = json.loads(body or b"{}")
    except ValueError as error:
        raise FaultRefused("", f"the body is not JSON: {error}", "send an object") from error
    if not isinstance(asked, dict):
        raise FaultRefused("", f"the body is a {type(asked).__name__}", "send an object")
    for name in asked:
        if name not in fields:
            raise FaultRefused(name, f"{name!r} is not known here", f"there are: {', '.join(fields) or 'none'}")
    return asked


def _make_way(path: Path) -> None:
    """Remove what a dead proxy left. Raises Trouble for a living one's, and for what is no socket."""
    if (size := len(os.fsencode(path))) > SOCKET_PATH_BYTES_MAX:
        raise _unusable(path, f"it has {size} bytes, and the path of a unix socket may have {SOCKET_PATH_BYTES_MAX}")
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _unusable(path, "it exists, and is no socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, str(error)) from error
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _unusable(path, str(error)) from error
    raise Trouble(
        f"another proxy is steered by {path}",
        remedy="end that one, or give this one a socket of its own: --control SOCKET",
    )


def _inode(path: Path) -> int | None:
    """None where there is no such file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _unusable(path: Path, why: str) -> Trouble:
    return Trouble(
        f"--control {path} cannot be used",
        why=why,
        remedy="name a path in a folder that you may write to",
        code=Exit.USAGE,
    )
