"""Feels an engine's pulse: counts what comes of its answers, reads its figures, asks it for one token.

What follows from any of it is decided in `state.liveness`; here are only facts, and no clock.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import structlog

from shrk_contract.terms import Endpoint, Rejection
from shrk_node_agent.attempts import AttemptSink, Failed, Finished, Order, Piece
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.readiness import ANSWER_BYTES_MAX, PROBES

#: A busy engine's front end tells its figures between two steps; one that takes longer tells them at the next look.
FIGURES_SECONDS_MAX = 5.0
#: vLLM's page has some 100 KB.
FIGURES_BYTES_MAX = 4 * 1024 * 1024
#: Longer than the state waits in the worst case; it only ends a question that nobody waits for any more.
CANARY_SECONDS_MAX = 300.0

#: What only a working core moves: tokens out, tokens in, and, while a long prompt is read in parts, the cache's use.
_FIGURES = re.compile(
    rb"^vllm:(?:generation_tokens_total|prompt_tokens_total|kv_cache_usage_perc)(?:\{.*\})? (\S+)$", re.MULTILINE
)

log = structlog.get_logger("shrk.engine")


@dataclass(slots=True)
class Totals:
    """What a node has answered since its agent began."""

    requests: int = 0
    tokens: int = 0


class Pulse:
    """One life of one engine, from its first token on. Runs in the event loop."""

    def __init__(
        self,
        spec: EngineSpec,
        socket: Path,
        endpoints: Sequence[Endpoint],
        on_figures: Callable[[tuple[str, ...]], None],
        on_token: Callable[[], None],
        totals: Totals | None = None,
    ) -> None:
        """`endpoints` are those that it has answered; `on_figures` and `on_token` hear what it answers now. `totals`
        takes what passes."""
        self._totals = totals or Totals()
        #: Pieces that came of its answers, ever.
        self.pieces = 0
        #: Answers that wait for their coordinator's credit.
        self.held = 0
        self._told = (0, 0)
        self._spec = spec
        self._socket = socket
        self._question = next(((e, body) for e, body in PROBES[spec.task].items() if e in endpoints), None)
        self._on_figures = on_figures
        self._on_token = on_token
        self._reading: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def watch(self, order: Order, sink: AttemptSink) -> WatchedSink:
        """The sink for one attempt, which counts what passes."""
        self._totals.requests += 1
        # Prompts are counted by the engine's front end, which goes on when its core hangs.
        return WatchedSink(sink, None if order.endpoint is Endpoint.COUNT_TOKENS else self)

    def count(self, piece: Piece) -> None:
        """It gave a part of an answer."""
        self.pieces += 1
        self._totals.tokens += piece.tokens

    def moved(self) -> bool:
        """Whether any piece came, or any answer began or ceased to wait for credit, since this was last asked."""
        before, self._told = self._told, (self.pieces, self.held)
        return self._told != before

    def read_figures(self) -> None:
        """Read its figures; where that is under way already, once is enough."""
        if self._reading is None or self._reading.done():
            self._reading = self._in_background(self._read_figures(), "figures")

    def ask_canary(self) -> None:
        """Ask for one token, in place of any such question before."""
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self._in_background(self._ask_canary(), "canary")

    def stop(self) -> None:
        """Nothing is told any more."""
        for task in (self._reading, self._asking):
            if task is not None:
                task.cancel()

    async def _read_figures(self) -> None:
        status, page = await self._exchange("GET", "/metrics", None, FIGURES_SECONDS_MAX, FIGURES_BYTES_MAX)
        if status == HTTPStatus.OK:
            self._on_figures(tuple(figure.decode(errors="replace") for figure in _FIGURES.findall(page)))
        elif status == HTTPStatus.NOT_FOUND:
            self._on_figures(())

    async def _ask_canary(self) -> None:
        if self._question is None:
            return
        endpoint, question = self._question
        body = orjson.dumps({"model": self._spec.model, **question})
        status, _ = await self._exchange("POST", endpoint.value, body, CANARY_SECONDS_MAX, ANSWER_BYTES_MAX)
        if status == HTTPStatus.OK:
            self._on_token()

    async def _exchange(
        self, method: str, path: str, body: bytes | None, seconds: float, bytes_max: int
    ) -> tuple[int | None, bytes]:
        """Status and body of one answer; no status where none came."""
        try:
            async with (
                asyncio.timeout(seconds),
                # A connection for each question: they are rare, and a kept one might break in between.
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self._socket))) as session,
                session.request(
                    method, f"http://engine{path}", data=body, headers={"content-type": "application/json"}
                ) as response,
            ):
                return response.status, await read_up_to(response, bytes_max)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None, b""  # Silence is a fact too: whoever asked has a deadline for it.

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                log.error("feeling an engine's pulse failed", engine=self._spec.id, exc_info=error)

        task = asyncio.create_task(work, name=f"{name}-{self._spec.id}")
        task.add_done_callback(ended)
        return task


class WatchedSink:
    """An attempt's sink that counts its pieces, and lets the attempt end only once."""

    __slots__ = ("_over", "_pulse", "_sink", "spoke")

    def __init__(self, sink: AttemptSink, pulse: Pulse | None) -> None:
        """Without a pulse nothing is counted."""
        self._sink = sink
        self._pulse = pulse
        self._over = False
        #: A piece was passed on, or waits for credit.
        self.spoke = False

    def accept(self) -> None:
        """The attempt is taken on."""
        self._sink.accept()

    def reject(self, reason: Rejection, message: str) -> None:
        """The attempt is not taken on."""
        self._sink.reject(reason, message)

    def prompt(self, token_ids: Sequence[int]) -> None:
        """The prompt as the engine tokenised it."""
        self._sink.prompt(token_ids)

    async def piece(self, piece: Piece) -> None:
        """Count, and pass on. Raises CreditWithheld."""
        self.spoke = True
        if (pulse := self._pulse) is None:
            return await self._sink.piece(piece)
        pulse.count(piece)
        pulse.held += 1
        try:
            await self._sink.piece(piece)
        finally:
            pulse.held -= 1

    def finish(self, finished: Finished) -> None:
        """The answer is whole."""
        if not self._over:
            self._sink.finish(finished)
            self._over = True

    def fail(self, failed: Failed) -> None:
        """The answer will not become whole."""
        if not self._over:
            self._sink.fail(failed)
            self._over = True
