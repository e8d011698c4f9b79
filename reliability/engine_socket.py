"""A simulated engine's own socket: its faults and its figures."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from reliability.waiting import NotInTime

#: An engine answers from memory; one that is stopped or gone does not answer at all.
ANSWER_SECONDS_MAX = 5.0
#: Everything asked for here is generated within a second.
GENERATED_SECONDS_MAX = 30.0
#: Between two looks at the figures: what is measured with them is at most so much too long.
LOOK_SECONDS = 0.003


@dataclass(frozen=True, slots=True)
class Figures:
    """What it tells of itself."""

    running: int
    waiting: int
    #: Tokens generated since it began.
    generated: int


@dataclass(frozen=True, slots=True)
class EngineSocket:
    """One engine."""

    path: Path

    async def arm(self, kind: str, token: int = 0, times: int | None = None, factor: float | None = None) -> bool:
        """Let it go wrong when an answer has `token` tokens; False where nobody answers. `factor`: how slow it is."""
        given = {"times": times, "factor": factor}
        body = {"kind": kind, "token": token} | {name: value for name, value in given.items() if value is not None}
        return await self._ask("POST", body)

    async def clear(self) -> bool:
        """No fault any more; False where nobody answers."""
        return await self._ask("DELETE", None)

    async def figures(self) -> Figures:
        """Raises aiohttp.ClientError, OSError or TimeoutError where nobody answers."""
        async with self._session() as session, session.get("http://engine/metrics") as answer:
            lines = (await answer.text()).splitlines()
        read = {line.partition("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("vllm:")}
        return Figures(
            running=int(read["vllm:num_requests_running"]),
            waiting=int(read["vllm:num_requests_waiting"]),
            generated=int(read["vllm:generation_tokens_total"]),
        )

    async def until_generated(self, count: int) -> None:
        """Wait until it has generated so many tokens since it began. Raises as `figures`, and NotInTime."""
        deadline = time.monotonic() + GENERATED_SECONDS_MAX
        while True:
            if (await self.figures()).generated >= count:
                return
            if time.monotonic() > deadline:
                raise NotInTime(f"{self.path} has not generated {count} tokens after {GENERATED_SECONDS_MAX:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def until_idle(self, seconds: float) -> bool:
        """Wait until it runs nothing; False where it still does after `seconds`. Raises as `figures`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            figures = await self.figures()
            if figures.running + figures.waiting == 0:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def chat(self, body: dict[str, Any]) -> bytes:
        """The engine's own answer to a request. Raises aiohttp.ClientError, OSError or TimeoutError."""
        async with self._session() as session, session.post("http://engine/v1/chat/completions", json=body) as answer:
            return await answer.read()

    async def _ask(self, method: str, body: dict[str, Any] | None) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with (
                self._session() as session,
                session.request(method, "http://engine/simulated/faults", json=body) as answer,
            ):
                return answer.status == 200
        return False

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path)), timeout=timeout)
