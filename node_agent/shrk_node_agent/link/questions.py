"""What this node asks its coordinator about itself, on one link: its verdict, and a probe with a real token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from shrk_contract.terms import VERDICT_MINOR
from shrk_contract.v1 import link_pb2

NodeFrame = link_pb2.NodeFrame

Answer = TypeVar("Answer")

#: Questions that wait for their answers on one link: a few people, and a script that runs away.
WAITING_MAX = 32


class LinkEnded(Exception):
    """The link was lost before the coordinator answered."""


class CoordinatorTooOld(Exception):
    """The coordinator does not know the question."""


class TooManyQuestions(Exception):
    """So many wait for their answers already."""


class Questions:
    """Asks, and hands the answers to whoever waits. One per link."""

    def __init__(self, send: Callable[[NodeFrame], None]) -> None:
        self._send = send
        #: The minor of the coordinator's protocol, known from its welcome on.
        self.coordinator_minor = VERDICT_MINOR
        self._verdicts: dict[int, asyncio.Future[link_pb2.Verdict]] = {}
        self._probes: dict[int, asyncio.Future[link_pb2.ProbeResult]] = {}
        self._next = 1
        self._ended = False

    async def verdict(self, seconds: float) -> link_pb2.Verdict:
        """The coordinator's verdict. Raises CoordinatorTooOld, LinkEnded, TooManyQuestions, and TimeoutError after
        `seconds`."""
        # Of several questions the coordinator answers one, and that answers all who wait.
        return await self._ask(self._verdicts, seconds, lambda _: NodeFrame(ask_verdict=link_pb2.AskVerdict()))

    async def probe(self, model: str, seconds: float) -> link_pb2.ProbeResult:
        """How a probe went. `model` may be empty: any that this node serves. Raises as `verdict`."""
        return await self._ask(
            self._probes, seconds, lambda id_: NodeFrame(probe=link_pb2.Probe(probe_id=id_, model=model))
        )

    async def _ask(
        self, waiting: dict[int, asyncio.Future[Answer]], seconds: float, question: Callable[[int], NodeFrame]
    ) -> Answer:
        if self._ended:
            raise LinkEnded("the link has ended")
        if self.coordinator_minor < VERDICT_MINOR:
            raise CoordinatorTooOld(f"it speaks minor {self.coordinator_minor}; {VERDICT_MINOR} is needed")
        if len(self._verdicts) + len(self._probes) >= WAITING_MAX:
            raise TooManyQuestions(f"{WAITING_MAX} wait already")
        number, self._next = self._next, self._next + 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting[number] = answer
        self._send(question(number))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            waiting.pop(number, None)

    # --- what the coordinator says -------------------------------------------------------------------

    def verdict_told(self, verdict: link_pb2.Verdict) -> None:
        """A verdict came; one that nobody waits for is dropped."""
        for answer in self._verdicts.values():
            if not answer.done():
                answer.set_result(verdict)

    def probed(self, result: link_pb2.ProbeResult) -> None:
        """A probe ended; one that nobody waits for is dropped."""
        answer = self._probes.get(result.probe_id)
        if answer is not None and not answer.done():
            answer.set_result(result)

    def end(self) -> None:
        """The link has ended: nothing more will come."""
        self._ended = True
        for verdict in self._verdicts.values():
            _lose(verdict)
        for probe in self._probes.values():
            _lose(probe)


def _lose(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(LinkEnded("the link was lost"))
