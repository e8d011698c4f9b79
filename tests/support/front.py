"""The callers' HTTP in front of nodes that a test plays by hand: real aiohttp, real driver and state, no links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.held import HELD_BYTES_MAX
from shrk_coordinator.data_plane.http import CallersHttp
from shrk_coordinator.data_plane.relay import Patience, StreamedRelay
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.records import ApiKey, Scope
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import LinkId, StreamId
from shrk_coordinator.streams import AttemptSink
from support.states import link_node

KEY = ApiKey(id="k", sha256=b"", name="test", scope=Scope.CALLER, created_at=0)


@dataclass
class PlayedLinks:
    """Every link: what the coordinator says is kept, what nodes say is the test's."""

    started: asyncio.Queue[tuple[link_pb2.Start, AttemptSink]] = field(default_factory=asyncio.Queue)
    cancelled: asyncio.Queue[tuple[StreamId, str]] = field(default_factory=asyncio.Queue)
    credit_given: dict[StreamId, int] = field(default_factory=dict)

    def welcome(self, effect: do.WelcomeNode) -> None:
        """Nodes here need no welcome."""

    def close(self, effect: do.CloseLink) -> None:
        """Nor a farewell."""

    def start(
        self, link: LinkId, stream: StreamId, frames: Sequence[link_pb2.CoordinatorFrame], sink: AttemptSink
    ) -> bool:
        self.started.put_nowait((frames[0].start, sink))
        return True

    def cancel(self, link: LinkId, stream: StreamId, reason: str) -> None:
        self.cancelled.put_nowait((stream, reason))

    def release(self, link: LinkId, stream: StreamId) -> None:
        """The test drops what it holds by itself."""

    def credit(self, link: LinkId, stream: StreamId, size: int) -> None:
        self.credit_given[stream] = self.credit_given.get(stream, 0) + size


@dataclass
class PlayedAttempt:
    """One attempt, answered by the test."""

    start: link_pb2.Start
    sink: AttemptSink
    sequence: int = 0
    index: int = 0

    def say(self, part: bytes, tokens: int = 1) -> None:
        """One piece."""
        piece = link_pb2.Piece(stream=self.start.stream, sequence=self.sequence, first_index=self.index, tokens=tokens)
        self.sequence += 1
        self.index += tokens
        self.sink.piece(piece, len(part), part)

    def end(self) -> None:
        """The answer is whole."""
        end = link_pb2.ChoiceEnd(index=0, finish_reason="stop")
        self.sink.finish(link_pb2.Finish(stream=self.start.stream, end_index=self.index, choices=[end]))


@dataclass
class Front:
    """The callers' HTTP and the nodes behind it."""

    port: int
    driver: Driver
    links: PlayedLinks
    session: aiohttp.ClientSession
    http: CallersHttp

    def held(self) -> int:
        """Bytes that the one streamed request holds for its caller: in its relay, and in its transport."""
        total = 0
        for relay in self.driver._requests.values():
            assert isinstance(relay, StreamedRelay)
            total += sum(map(len, relay._pending)) + (relay._pipe.backlog if relay._pipe else 0)
        return total

    def hold_all_but(self, left: int) -> None:
        """As if other requests held nearly everything that may be held."""
        assert self.http._shared.held.take(HELD_BYTES_MAX - left)

    def let_go(self) -> None:
        """As if they had ended."""
        self.http._shared.held.give_back(HELD_BYTES_MAX - 10)

    async def attempt(self) -> PlayedAttempt:
        """The next attempt that a node is asked for."""
        return PlayedAttempt(*await self.links.started.get())

    def chat(self, **fields: Any) -> Any:
        """Ask, as a caller: a context manager of the answer."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
        return self.session.post(f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body)


@contextlib.asynccontextmanager
async def a_front(patience: Patience | None = None, nodes: Sequence[str] = ("a", "b")) -> AsyncIterator[Front]:
    """Nodes serve `m`; every key is good."""
    driver, links = Driver(), PlayedLinks()
    driver.connect(links)
    for node in nodes:
        link_node(driver.state, node, "m", now=driver.now())

    async def authenticate(presented: str) -> ApiKey:
        return KEY

    http = CallersHttp(driver, links, driver.state.roster, authenticate, str, Metrics(), patience)
    runner = web.AppRunner(http.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as session:
            yield Front(runner.addresses[0][1], driver, links, session, http)
    finally:
        await runner.cleanup()
