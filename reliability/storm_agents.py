"""Many agents in one process: the agent's own enrolment, dialler and session, with a mock engine where one would be.

A program of its own: it reads one JSON line (`Wish`) from stdin, enrols, dials, and holds the links. For each further
line it prints one JSON line (`Told`); it ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
import uvloop

from bench.engine import WHOLE, MockEngine
from shrk_contract.service import running
from shrk_contract.terms import Endpoint, EngineReport, Host, Rejection, Report, State, Status
from shrk_node_agent.attempts import AttemptSink
from shrk_node_agent.link.dial import Dialler, LinkState
from shrk_node_agent.link.enrol import enrol
from shrk_node_agent.link.identity import next_incarnation
from shrk_node_agent.link.session import Session, SessionPort

#: Enrolments at once in one process: each costs both sides a key, a signature and two handshakes.
ENROLLING_MAX = 4
SLOTS = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What the parent asks for."""

    controller: str
    directory: str
    #: One agent for each.
    join_tokens: Sequence[str]


@dataclass(slots=True)
class Told:
    """What became of the agents since the last question."""

    #: Linked now.
    linked: int = 0
    #: When each link was welcomed; monotonic seconds, which all processes of a machine share.
    welcomed_at: list[float] = field(default_factory=list)
    #: Dials that came to nothing, links that broke off, and refusals by word.
    failed: int = 0
    lost: int = 0
    refused: list[str] = field(default_factory=list)


class Agent:
    """One of them."""

    def __init__(self, directory: Path, name: str, told: Told) -> None:
        self._engine = MockEngine(0.0)
        self._directory = directory / name
        self._name = name
        self._told = told
        self._sequence = 0
        self._dialler: Dialler | None = None
        self.linked = False

    async def enrol(self, controller: str, join_token: str) -> None:
        """Get a certificate, as a new machine does."""
        identity = await enrol(controller, join_token, self._directory, self._name, "reliability")
        self._dialler = Dialler(
            identity=identity,
            addresses=identity.link_addresses,
            incarnation=await asyncio.to_thread(next_incarnation, self._directory),
            agent_version="reliability",
            port=SessionPort(self._engine.ordered, _refuse_unknown, self._engine.cancelled, _keep_models),
            report=self._report,
            lost=self._lost,
            changed=self._changed,
            clock=lambda: time.time_ns() // 1_000_000,
            monotonic=time.monotonic,
            fraction=random.random,
        )

    async def run(self) -> None:
        """Hold the link until cancelled."""
        assert self._dialler is not None, "enrol() comes first"
        await self._dialler.run()

    def _changed(self) -> None:
        assert self._dialler is not None
        told, status = self._told, self._dialler.status
        was, self.linked = self.linked, status.state is LinkState.CONNECTED
        if self.linked:
            told.welcomed_at.append(time.monotonic())
        elif was:
            told.lost += 1
        elif status.state is LinkState.REFUSED:
            told.refused.append(status.reason)
        else:
            told.failed += 1

    def _lost(self, session: Session) -> None:
        for key in session.open_attempts():
            self._engine.cancelled(key)

    def _report(self) -> Report:
        self._sequence += 1
        online = Status(State.ONLINE)
        chat = (Endpoint.CHAT_COMPLETIONS,)
        engine = EngineReport(id=WHOLE, model=WHOLE, status=online, endpoints=chat, slots=SLOTS)
        return Report(Host(self._name), online, (engine,), agent_version="reliability", sequence=self._sequence)


def _keep_models(term: int, revision: int, models: tuple[str, ...]) -> None:
    """Whatever it is told: it serves its one model."""


def _refuse_unknown(sink: AttemptSink) -> None:
    sink.reject(Rejection.UNSUPPORTED, "chat completions only")


async def serve(wish: Wish) -> None:
    """Enrol all, dial, and tell what is asked until stdin ends."""
    directory, told = Path(wish.directory), Told()
    agents = [Agent(directory, f"agent-{number}", told) for number in range(len(wish.join_tokens))]
    places = asyncio.Semaphore(ENROLLING_MAX)

    async def enrolled(agent: Agent, join_token: str) -> None:
        async with places:
            await agent.enrol(wish.controller, join_token)

    await asyncio.gather(*(enrolled(a, t) for a, t in zip(agents, wish.join_tokens, strict=True)))
    print(json.dumps("enrolled"), flush=True)

    async def all_run() -> None:
        await asyncio.gather(*(agent.run() for agent in agents))

    async with running(all_run(), "agents"):
        while await asyncio.to_thread(sys.stdin.readline):
            told.linked = sum(agent.linked for agent in agents)
            print(json.dumps(asdict(told)), flush=True)
            told.linked, told.failed, told.lost = 0, 0, 0
            told.welcomed_at.clear()
            told.refused.clear()


if __name__ == "__main__":
    # What 2,000 agents say of a lost link, each would say on a machine of its own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    uvloop.run(serve(Wish(**json.loads(sys.stdin.readline()))))
