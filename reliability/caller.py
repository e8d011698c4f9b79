"""One caller's request, what comes of it, and when."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_END = b"\n\n"
_EVENT = b"data: "


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    request_id: str
    body: bytes = b""
    #: As it was told; empty where it was not.
    retry_after: str = ""
    #: When each piece came: an event that says something. Monotonic seconds.
    pieces: list[float] = field(default_factory=list)

    def pauses(self) -> list[float]:
        """Seconds between two pieces, in order."""
        return [after - before for before, after in zip(self.pieces, self.pieces[1:], strict=False)]


def says_something(event: bytes) -> bool:
    """Whether an event has text or a part of a tool call in it."""
    if not event.startswith(_EVENT) or event.endswith(b"[DONE]"):
        return False
    deltas = [choice.get("delta") or {} for choice in json.loads(event[len(_EVENT) :]).get("choices", ())]
    return any(delta.get("content") or delta.get("tool_calls") for delta in deltas)


class Caller:
    """Asks once."""

    def __init__(self, session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
        self._session = session
        self._url = url
        self._body = body
        self._pieces: list[float] = []
        self._news = asyncio.Event()
        self._over = False

    async def ask(self) -> Answer:
        """The whole answer, as far as it came: a connection that breaks off ends it."""
        try:
            async with self._session.post(self._url, json=self._body) as response:
                headers = response.headers
                answer = Answer(response.status, headers.get("x-request-id", ""), pieces=self._pieces)
                answer.retry_after = headers.get("Retry-After", "")
                await self._read(response, answer)
                return answer
        finally:
            self._over = True
            self._news.set()

    async def until(self, count: int) -> None:
        """Return once so many pieces have come, or the answer is over."""
        while len(self._pieces) < count and not self._over:
            self._news.clear()
            await self._news.wait()

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        rest = b""
        try:
            async for chunk in response.content.iter_any():
                answer.body += chunk
                *events, rest = (rest + chunk).split(_END)
                for event in events:
                    if says_something(event):
                        self._pieces.append(time.monotonic())
                        self._news.set()
        except aiohttp.ClientPayloadError:
            return  # What is missing is seen when the answer is judged.
