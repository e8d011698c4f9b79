"""What an owner asks of a running agent through its control socket: pause, resume, stop, reload."""

from __future__ import annotations

import math
from typing import Any, Protocol

import orjson
from aiohttp import web

from shrk_contract.trouble import Trouble
from shrk_node_agent.pauses import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN
from shrk_node_agent.reload import Changes


class AgentPort(Protocol):
    """What the agent does when it is asked."""

    def pause(self, seconds: float | None) -> None:
        """Take no new work for so long; None: until `resume`. Raises OSError."""
        ...

    def resume(self) -> None:
        """End a pause; without one, nothing. Raises OSError."""
        ...

    def stop_soon(self, now: bool) -> None:
        """Begin to drain, then end; `now`: without the drain. Returns at once."""
        ...

    async def reload_now(self) -> Changes:
        """Read the settings anew; what was taken in of them, and what needs a restart. Raises Trouble where they are
        not valid."""
        ...


def routes(agent: AgentPort) -> list[web.RouteDef]:
    """For `ControlSocket`."""

    async def pause(request: web.Request) -> web.Response:
        try:
            seconds = _seconds(await _body(request))
        except ValueError as error:
            return _wrong(error)
        try:
            agent.pause(seconds)
        except OSError as error:
            return _json({"error": f"the pause cannot be kept, and so does not begin: {error}"}, 500)
        return _json({"schema": 1})

    async def resume(_request: web.Request) -> web.Response:
        try:
            agent.resume()
        except OSError as error:
            return _json({"error": f"the pause goes on: its file cannot be removed: {error}"}, 500)
        return _json({"schema": 1})

    async def stop(request: web.Request) -> web.Response:
        try:
            now = (await _body(request)).get("now", False)
            if not isinstance(now, bool):
                raise ValueError(f"now is {now!r}: true or false")
        except ValueError as error:
            return _wrong(error)
        agent.stop_soon(now)
        return _json({"schema": 1})

    async def reload(_request: web.Request) -> web.Response:
        try:
            changes = await agent.reload_now()
        except Trouble as trouble:
            return _json({"error": str(trouble)}, 422)
        return _json({"schema": 1, "applied": changes.applied, "needs_restart": changes.needs_restart})

    return [
        web.post("/pause", pause),
        web.post("/resume", resume),
        web.post("/reload", reload),
        web.post("/stop", stop),
    ]


async def _body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent; nothing is an empty one. Raises ValueError."""
    sent = await request.read()
    body = orjson.loads(sent) if sent else {}
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object")
    return body


def _seconds(body: dict[str, Any]) -> float | None:
    """Raises ValueError."""
    seconds = body.get("seconds")
    if seconds is None:
        return None
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not number or not PAUSE_SECONDS_MIN <= seconds <= PAUSE_SECONDS_MAX:
        raise ValueError(
            f"seconds is {seconds!r}: {PAUSE_SECONDS_MIN} to {PAUSE_SECONDS_MAX} is allowed, or null for no end"
        )
    return float(seconds)


def _wrong(error: ValueError) -> web.Response:
    return _json({"error": str(error)}, 400)


def _json(payload: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(payload), content_type="application/json", status=status)
