"""The callers' HTTP in front of nodes that a test plays by hand: real aiohttp, real driver and state, no links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from shrk_contract.terms import Endpoint, Fault, Pin, Rejection
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.held import HELD_BYTES_MAX
from shrk_coordinator.data_plane.http import CallersHttp
from shrk_coordinator.data_plane.relay import Patience
from shrk_coordinator.data_plane.streamed import StreamedRelay
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.records import ApiKey, Scope
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.events import FailureDetail, LinkId, StreamId
from shrk_coordinator.streams import AttemptSink
from support.network import events_of
from support.states import a_report, link_node, new_link

KEY = ApiKey(id="k", sha256=b"", name="test", scope=Scope.CALLER, created_at=0)
SERVED = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS)


@dataclass
class PlayedLinks:
    """Every link: what the coordinator says is kept, what nodes say is the test's."""

    started: asyncio.Queue[tuple[Sequence[link_pb2.CoordinatorFrame], AttemptSink]] = field(
        default_factory=asyncio.Queue
    )
    cancelled: asyncio.Queue[tuple[StreamId, str]] = field(default_factory=asyncio.Queue)
    credit_given: dict[StreamId, int] = field(default_factory=dict)
    #: Every link turns out to be gone when something is to be sent on it.
    gone: bool = False

    def welcome(self, effect: do.WelcomeNode) -> None:
        """Nodes here need no welcome."""

    def assign(self, effect: do.AssignModels) -> None:
        """These nodes keep what they have loaded."""

    def close(self, effect: do.CloseLink) -> None:
        """Nor a farewell."""

    def start(
        self, link: LinkId, stream: StreamId, frames: Sequence[link_pb2.CoordinatorFrame], sink: AttemptSink
    ) -> bool:
        if not self.gone:
            self.started.put_nowait((frames, sink))
        return not self.gone

    def cancel(self, link: LinkId, stream: StreamId, reason: str) -> None:
        self.cancelled.put_nowait((stream, reason))

    def release(self, link: LinkId, stream: StreamId) -> None:
        """The test drops what it holds by itself."""

    def credit(self, link: LinkId, stream: StreamId, size: int) -> None:
        self.credit_given[stream] = self.credit_given.get(stream, 0) + size


@dataclass
class PlayedAttempt:
    """One attempt, answered by the test."""

    frames: Sequence[link_pb2.CoordinatorFrame]
    sink: AttemptSink
    driver: Driver
    sequence: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        self.index = self.start.resume.delivered_tokens

    @property
    def start(self) -> link_pb2.Start:
        """The frame that it begins with."""
        return self.frames[0].start

    def prefixes(self) -> tuple[list[int], list[int]]:
        """The ids of prompt and delivered tokens that it was given to go on from."""
        given = [frame.prefix for frame in self.frames if frame.WhichOneof("frame") == "prefix"]
        return [i for p in given for i in p.prompt_token_ids], [i for p in given for i in p.delivered_token_ids]

    @property
    def node(self) -> str:
        """Who was asked."""
        return self.driver.state.attempts.by_stream[self.start.stream].node_id

    def prompt(self, *ids: int) -> None:
        """The prompt's ids."""
        self.sink.prompt(link_pb2.Prompt(stream=self.start.stream, token_ids=ids))

    def say(self, part: bytes, tokens: int = 1, **fields: Any) -> None:
        """One piece; `ids` of its tokens, or how many `tokens` without."""
        ids = fields.pop("ids", ())
        tokens = len(ids) or tokens
        piece = link_pb2.Piece(
            stream=self.start.stream,
            sequence=self.sequence,
            first_index=self.index,
            tokens=tokens,
            token_ids=ids,
            **fields,
        )
        self.sequence += 1
        self.index += tokens
        self.sink.piece(piece, len(part), part)

    def say_last(self, part: bytes, **fields: Any) -> None:
        """The piece with the last token, and how the answer ended."""
        self.say(part, end=self._choice_end(), **fields)

    def end(self, **fields: Any) -> None:
        """The answer is whole."""
        finish = link_pb2.Finish(stream=self.start.stream, end_index=self.index, choices=[self._choice_end()], **fields)
        self.sink.finish(finish)

    def _choice_end(self) -> link_pb2.ChoiceEnd:
        return link_pb2.ChoiceEnd(index=self.start.envelope.choice_index, finish_reason="stop")

    def reject(self) -> None:
        """The node does not take it."""
        self.driver.post(seen.AttemptRejected(self.driver.now(), self.start.stream, Rejection.BUSY))

    def fail(self, code: str = "engine_lost", fault: Fault = Fault.ENGINE) -> None:
        """The answer will not become whole."""
        failure = FailureDetail(fault, f"it ended with {code}", code=code)
        self.driver.post(seen.AttemptFailed(self.driver.now(), self.start.stream, failure))

    def lose(self) -> None:
        """The node is gone, with all that runs there."""
        attempt = self.driver.state.attempts.by_stream[self.start.stream]
        self.driver.post(seen.LinkClosed(self.driver.now(), attempt.node_id, attempt.link, "cut"))


@dataclass
class Front:
    """The callers' HTTP and the nodes behind it."""

    port: int
    driver: Driver
    links: PlayedLinks
    session: aiohttp.ClientSession
    http: CallersHttp
    metrics: Metrics
    #: Bytes that `hold_all_but` took.
    hogged: int = 0

    def link(self, node: str, pin: Pin | None = None) -> None:
        """A node dials, for the first time or again, and serves `m`; what waits for one is asked of it."""
        link, now = new_link(), self.driver.now()
        self.driver.post(seen.NodeHello(now, node, link, 1, owner="o"))
        self.driver.post(seen.NodeReported(now, node, link, a_report("m", endpoints=SERVED, pin=pin)))

    def later(self, seconds: float) -> None:
        """As if so much time had passed, and nothing else had happened."""
        self.driver.post(seen.Tick(self.driver.now() + seconds))

    def relay(self) -> StreamedRelay:
        """The one streamed request under way."""
        [relay] = self.driver._requests.values()
        assert isinstance(relay, StreamedRelay)
        return relay

    def held(self) -> int:
        """Bytes that the one streamed request holds for its caller: in its relay, and in its transport."""
        total = 0
        for relay in self.driver._requests.values():
            assert isinstance(relay, StreamedRelay)
            total += sum(map(len, relay._pending)) + (relay._pipe.backlog if relay._pipe else 0)
        return total

    def hold_all_but(self, left: int) -> None:
        """As if other requests held nearly everything that may be held."""
        self.hogged = HELD_BYTES_MAX - self.still_held() - left
        assert self.http._shared.held.take(self.hogged)

    def let_go(self) -> None:
        """As if they had ended."""
        self.http._shared.held.give_back(self.hogged)

    def still_held(self) -> int:
        """Bytes of bodies and whole answers that are held now."""
        return HELD_BYTES_MAX - self.http._shared.held._left

    def counted(self, name: str, **labels: str) -> float:
        """A sample of the metrics; 0 where nothing was counted."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def attempt(self) -> PlayedAttempt:
        """The next attempt that a node is asked for."""
        return PlayedAttempt(*await self.links.started.get(), self.driver)

    def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """Ask, as a caller: a context manager of the answer."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
        return self.session.post(f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body, headers=headers)

    def complete(self, prompt: Any, **fields: Any) -> Any:
        """Ask for a completion."""
        body = {"model": "m", "prompt": prompt, "stream": True, **fields}
        return self.session.post(f"http://127.0.0.1:{self.port}/v1/completions", json=body)


@contextlib.asynccontextmanager
async def a_front(
    patience: Patience | None = None,
    nodes: Sequence[str] = ("a", "b"),
    buffers: bool = False,
    key: ApiKey = KEY,
) -> AsyncIterator[Front]:
    """Nodes serve `m`; every text is good for `key`. `buffers`: structured output is held back unless asked for."""
    metrics, links = Metrics(), PlayedLinks()
    driver = Driver(metrics)
    driver.connect(links)
    for node in nodes:
        link_node(driver.state, node, "m", now=driver.now(), endpoints=SERVED)

    async def authenticate(presented: str) -> ApiKey:
        return key

    http = CallersHttp(driver, links, driver.state, authenticate, str, metrics, patience, buffers=buffers)
    runner = web.AppRunner(http.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as session:
            yield Front(runner.addresses[0][1], driver, links, session, http, metrics)
    finally:
        await runner.cleanup()


def chunk(text: str, index: int = 0) -> bytes:
    """An event that brings a part of a chat's text."""
    return b"data: %b\n\n" % orjson.dumps({"choices": [{"index": index, "delta": {"content": text}}]})


def codes_of(events: list[Any]) -> list[str]:
    """What errors a stream has told."""
    return [event["error"]["code"] for event in events if isinstance(event, dict) and "error" in event]


async def rest_of(answer: aiohttp.ClientResponse) -> list[Any]:
    """Every event that has not been read yet."""
    return events_of(await answer.content.read())


@contextlib.asynccontextmanager
async def a_begun(front: Front, **fields: Any) -> AsyncIterator[tuple[PlayedAttempt, aiohttp.ClientResponse]]:
    """A chat whose prompt is (1, 2, 3), and whose first two tokens, 10 and 11, "Hello", have reached its caller."""
    asking = asyncio.ensure_future(front.chat(**fields))
    attempt = await front.attempt()
    attempt.prompt(1, 2, 3)
    attempt.say(chunk("Hel"), ids=(10,), text_digest=5)
    attempt.say(chunk("lo"), ids=(11,), text_digest=6)
    async with await asking as answer:
        for text in ("Hel", "lo"):
            assert await answer.content.readuntil(b"\n\n") == chunk(text)
        yield attempt, answer
