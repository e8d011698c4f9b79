"""Mock nodes: the agent's own enrolment, dialler and session, with a mock engine where an engine process would be.

Many nodes share this one process, because two cores cannot hold 32 agents beside what is measured. It reads one
JSON line from stdin (`Wish`), prints "linked" when every node is, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.engine import MODELS, MockEngine
from shrk_contract.service import configure_logs, running
from shrk_contract.terms import Endpoint, EngineReport, Host, Rejection, Report, State, Status
from shrk_node_agent.attempts import AttemptSink
from shrk_node_agent.link.dial import Dialler, LinkState
from shrk_node_agent.link.enrol import enrol
from shrk_node_agent.link.identity import next_incarnation
from shrk_node_agent.link.session import Session, SessionPort

#: Enrolments at once: each costs both sides a key, a signature and two handshakes.
ENROLLING_MAX = 8
#: 32 enrolments take about 2 s on an idle machine.
LINKED_SECONDS_MAX = 60.0
#: Slots per node and model: placement compares shares of them, and all nodes are equal.
SLOTS = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """What the parent asks for."""

    controller: str
    directory: str
    #: One node for each.
    join_tokens: Sequence[str]


class MockNode:
    """One node."""

    def __init__(self, directory: Path, number: int, phase: float) -> None:
        self.linked = asyncio.Event()
        self.engine = MockEngine(phase)
        self._directory = directory / f"node-{number}"
        self._name = f"bench-{number}"
        self._sequence = 0
        self._dialler: Dialler | None = None

    async def enrol(self, controller: str, join_token: str) -> None:
        """Get a certificate, as a new machine does."""
        identity = await enrol(controller, join_token, self._directory, self._name, "bench")
        self._dialler = Dialler(
            identity=identity,
            addresses=identity.link_addresses,
            incarnation=await asyncio.to_thread(next_incarnation, self._directory),
            agent_version="bench",
            port=SessionPort(self.engine.ordered, _refuse_unknown, self.engine.cancelled, _keep_models),
            report=self._report,
            lost=self._lost,
            changed=self._changed,
            clock=lambda: time.time_ns() // 1_000_000,
            monotonic=time.monotonic,
            fraction=random.random,
        )

    async def run(self) -> None:
        """Hold the link and generate until cancelled."""
        assert self._dialler is not None, "enrol() comes first"
        async with running(self.engine.run(), f"{self._name}-engine"):
            await self._dialler.run()

    def _changed(self) -> None:
        assert self._dialler is not None
        if self._dialler.status.state is LinkState.CONNECTED:
            self.linked.set()

    def _lost(self, session: Session) -> None:
        for key in session.open_attempts():
            self.engine.cancelled(key)

    def _report(self) -> Report:
        self._sequence += 1
        online = Status(State.ONLINE)
        engines = [
            EngineReport(id=model, model=model, status=online, endpoints=(Endpoint.CHAT_COMPLETIONS,), slots=SLOTS)
            for model in MODELS
        ]
        return Report(Host(name=self._name), online, tuple(engines), agent_version="bench", sequence=self._sequence)


def _refuse_unknown(sink: AttemptSink) -> None:
    sink.reject(Rejection.UNSUPPORTED, "the bench speaks chat completions only")


def _keep_models(leader_term: int, revision: int, models: tuple[str, ...]) -> None:
    """These nodes serve what they serve."""


async def serve(wish: Wish) -> None:
    """Enrol and link all nodes, say so, and hold the links until stdin ends."""
    count = len(wish.join_tokens)
    # Steps are spread over the token's time: nodes of different owners keep no common beat.
    nodes = [MockNode(Path(wish.directory), number, number / count) for number in range(count)]
    places = asyncio.Semaphore(ENROLLING_MAX)

    async def enrolled(node: MockNode, join_token: str) -> None:
        async with places:
            await node.enrol(wish.controller, join_token)

    async with asyncio.timeout(LINKED_SECONDS_MAX):
        await asyncio.gather(*(enrolled(n, t) for n, t in zip(nodes, wish.join_tokens, strict=True)))
    links = [asyncio.create_task(node.run()) for node in nodes]
    try:
        async with asyncio.timeout(LINKED_SECONDS_MAX):
            await asyncio.gather(*(node.linked.wait() for node in nodes))
        print("linked", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)


if __name__ == "__main__":
    configure_logs("json")
    uvloop.run(serve(Wish(**json.loads(sys.stdin.readline()))))
