"""A mock node: the agent's own enrolment, dialler and session, with a mock engine where an engine process would be.

Many of them share a process: `nodes.py` here, and the storm of `reliability`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engine import MockEngine
from shrk_contract.terms import Endpoint, EngineReport, Host, Rejection, Report, State, Status
from shrk_node_agent.attempts import AttemptSink
from shrk_node_agent.link.dial import Dialler, LinkState, LinkStatus
from shrk_node_agent.link.enrol import enrol
from shrk_node_agent.link.identity import next_incarnation
from shrk_node_agent.link.session import Session, SessionPort

#: Enrolments at once in one process: each costs both sides a key, a signature and two handshakes.
ENROLLING_MAX = 4
_AGENT_VERSION = "mock"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a process of mock nodes, as its first line of JSON."""

    controller: str
    directory: str
    #: One node for each.
    join_tokens: Sequence[str]


def _tell_nobody(was_linked: bool, status: LinkStatus) -> None:
    """Whoever waits for `linked` needs no more."""


class MockNode:
    """One node."""

    def __init__(
        self,
        directory: Path,
        name: str,
        models: Sequence[str],
        slots: int,
        *,
        phase: float = 0.0,
        changed: Callable[[bool, LinkStatus], None] = _tell_nobody,
    ) -> None:
        """`slots` are those of each model, `phase` is the engine's; `changed` is told whether it was linked before."""
        self.name = name
        #: Set while it is.
        self.linked = asyncio.Event()
        self.engine = MockEngine(phase)
        self._directory = directory / name
        self._models = models
        self._slots = slots
        self._told = changed
        self._sequence = 0
        self._dialler: Dialler | None = None

    async def enrol(self, controller: str, join_token: str) -> None:
        """Get a certificate, as a new machine does."""
        identity = await enrol(controller, join_token, self._directory, self.name, _AGENT_VERSION)
        self._dialler = Dialler(
            identity=identity,
            addresses=identity.link_addresses,
            incarnation=await asyncio.to_thread(next_incarnation, self._directory),
            agent_version=_AGENT_VERSION,
            port=SessionPort(self.engine.ordered, _refuse_unknown, self.engine.cancelled, _keep_models),
            report=self._report,
            lost=self._lost,
            changed=self._changed,
            clock=lambda: time.time_ns() // 1_000_000,
            monotonic=time.monotonic,
            fraction=random.random,
        )

    async def run(self) -> None:
        """Hold the link until cancelled. Paced models need the engine's own `run` beside it."""
        assert self._dialler is not None, "enrol() comes first"
        await self._dialler.run()

    def _changed(self) -> None:
        assert self._dialler is not None
        was_linked, status = self.linked.is_set(), self._dialler.status
        if status.state is LinkState.CONNECTED:
            self.linked.set()
        else:
            self.linked.clear()
        self._told(was_linked, status)

    def _lost(self, session: Session) -> None:
        for key in session.open_attempts():
            self.engine.cancelled(key)

    def _report(self) -> Report:
        self._sequence += 1
        online, chat = Status(State.ONLINE), (Endpoint.CHAT_COMPLETIONS,)
        engines = tuple(
            EngineReport(id=model, model=model, status=online, endpoints=chat, slots=self._slots)
            for model in self._models
        )
        return Report(Host(self.name), online, engines, agent_version=_AGENT_VERSION, sequence=self._sequence)


async def enrol_all(nodes: Sequence[MockNode], wish: Wish) -> None:
    """Get each its certificate, some at a time."""
    places = asyncio.Semaphore(ENROLLING_MAX)

    async def enrolled(node: MockNode, join_token: str) -> None:
        async with places:
            await node.enrol(wish.controller, join_token)

    await asyncio.gather(*(enrolled(n, t) for n, t in zip(nodes, wish.join_tokens, strict=True)))


def _keep_models(leader_term: int, revision: int, models: tuple[str, ...]) -> None:
    """These nodes serve what they serve."""


def _refuse_unknown(sink: AttemptSink) -> None:
    sink.reject(Rejection.UNSUPPORTED, "the mock engine speaks chat completions only")
