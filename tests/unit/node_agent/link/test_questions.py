"""What this node asks about itself: answers reach whoever waits, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from shrk_contract.terms import VERDICT_MINOR
from shrk_contract.v1 import link_pb2
from shrk_node_agent.link.questions import WAITING_MAX, CoordinatorTooOld, LinkEnded, Questions, TooManyQuestions

#: It only ends a test that hangs.
LONG = 30.0


class Wire:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[link_pb2.NodeFrame] = []
        self._sent = asyncio.Queue[link_pb2.NodeFrame]()
        self.questions = Questions(self._sent.put_nowait)

    async def asks(self, count: int) -> None:
        """Wait for so many more questions."""
        for _ in range(count):
            self.sent.append(await self._sent.get())

    def is_silent(self) -> bool:
        """Whether nothing more was sent."""
        return self._sent.empty()


async def test_one_verdict_answers_all_who_wait_for_one() -> None:
    wire = Wire()
    waiting = [asyncio.ensure_future(wire.questions.verdict(LONG)) for _ in range(3)]
    await wire.asks(3)
    wire.questions.verdict_told(link_pb2.Verdict(state="online"))
    assert [(await each).state for each in waiting] == ["online"] * 3
    wire.questions.verdict_told(link_pb2.Verdict(state="busy"))  # nobody waits any more


async def test_a_probe_is_answered_under_its_own_number_whichever_ends_first() -> None:
    wire = Wire()
    first, second = (asyncio.ensure_future(wire.questions.probe(model, LONG)) for model in ("m", ""))
    await wire.asks(2)
    ids = [frame.probe.probe_id for frame in wire.sent]
    assert [frame.probe.model for frame in wire.sent] == ["m", ""]
    assert len(set(ids)) == 2
    wire.questions.probed(link_pb2.ProbeResult(probe_id=ids[1], reason="second"))
    wire.questions.probed(link_pb2.ProbeResult(probe_id=99, reason="nobody's"))
    wire.questions.probed(link_pb2.ProbeResult(probe_id=ids[0], reason="first"))
    assert ((await first).reason, (await second).reason) == ("first", "second")


async def test_a_coordinator_that_does_not_know_the_question_is_not_asked() -> None:
    wire = Wire()
    wire.questions.coordinator_minor = VERDICT_MINOR - 1
    for question in (wire.questions.verdict(LONG), wire.questions.probe("", LONG)):
        with pytest.raises(CoordinatorTooOld):
            await question
    assert wire.is_silent()


async def test_an_answer_that_does_not_come_ends_in_a_time_out_and_the_next_question_is_sent_anew() -> None:
    wire = Wire()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await wire.questions.verdict(0.0)
    await wire.asks(2)
    assert [frame.WhichOneof("frame") for frame in wire.sent] == ["ask_verdict"] * 2


async def test_a_link_that_ends_tells_all_who_wait_and_whoever_asks_afterwards() -> None:
    wire = Wire()
    waiting = [
        asyncio.ensure_future(wire.questions.verdict(LONG)),
        asyncio.ensure_future(wire.questions.probe("", LONG)),
    ]
    await wire.asks(2)
    wire.questions.end()
    for each in waiting:
        with pytest.raises(LinkEnded):
            await each
    with pytest.raises(LinkEnded):
        await wire.questions.verdict(LONG)


async def test_more_who_wait_than_any_house_has_are_turned_away() -> None:
    wire = Wire()
    waiting = [asyncio.ensure_future(wire.questions.probe("", LONG)) for _ in range(WAITING_MAX)]
    await wire.asks(WAITING_MAX)
    with pytest.raises(TooManyQuestions):
        await wire.questions.verdict(LONG)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    again = asyncio.ensure_future(wire.questions.verdict(LONG))
    await wire.asks(1)
    wire.questions.verdict_told(link_pb2.Verdict(state="online"))
    assert (await again).state == "online"
