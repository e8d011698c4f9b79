"""A simulated engine in the test's own loop, and a client on its socket."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from shrk_node_agent.engine.simulated.engine_room import EngineRoom
from shrk_node_agent.engine.simulated.server import Plan, serving

MODEL = "shark-sim"
#: Of clocks there is none in tests: everything was created at this second.
CREATED = 1_700_000_000


@dataclass(frozen=True, slots=True)
class SimulatedEngine:
    """A running engine and a session that talks to it."""

    room: EngineRoom
    session: aiohttp.ClientSession
    #: Set instead of killing the process.
    crashed: asyncio.Event

    async def post(self, path: str, **body: Any) -> Any:
        """The answer's JSON, whatever its status."""
        async with self.session.post(path, json=body) as response:
            return orjson.loads(await response.read())

    async def chat(self, content: str, **more: Any) -> Any:
        """A chat of one message, whole."""
        messages = [{"role": "user", "content": content}]
        return await self.post("/v1/chat/completions", model=MODEL, messages=messages, **more)

    async def events(self, path: str, **body: Any) -> list[Any]:
        """A stream's events, without the final [DONE]."""
        async with self.session.post(path, json=body | {"stream": True}) as response:
            return events_of(await response.read())

    async def chat_events(self, content: str, **more: Any) -> list[Any]:
        """A streamed chat's events."""
        messages = [{"role": "user", "content": content}]
        return await self.events("/v1/chat/completions", model=MODEL, messages=messages, **more)


def events_of(stream: bytes) -> list[Any]:
    """The JSON of a whole stream's events; AssertionError where it does not end as it should."""
    *events, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events]


def text_of(events: list[Any], choice: int = 0) -> str:
    """What a streamed chat said."""
    choices = [c for event in events for c in event["choices"] if c["index"] == choice]
    return "".join(c["delta"].get("content") or "" for c in choices)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event to wait on: the loop's own turns, with a deadline."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


@asynccontextmanager
async def simulated_engine(plan: Plan | None = None) -> AsyncIterator[SimulatedEngine]:
    """Serve in this loop; as fast as possible, unless the plan says otherwise."""
    home = Path(tempfile.mkdtemp(prefix="shrk-sim-"))  # Short: a unix socket's path holds 107 bytes.
    crashed = asyncio.Event()
    try:
        async with (
            serving(plan or Plan(MODEL), home / "engine.sock", clock=lambda: float(CREATED), crash=crashed.set) as room,
            aiohttp.ClientSession(
                "http://engine",
                connector=aiohttp.UnixConnector(path=str(home / "engine.sock"), limit=0),
            ) as session,
        ):
            yield SimulatedEngine(room, session, crashed)
    finally:
        shutil.rmtree(home, ignore_errors=True)
