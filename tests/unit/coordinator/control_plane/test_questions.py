"""What nodes ask about themselves: one verdict a second, and probes that answer under their own number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shrk_contract.terms import VERDICT_INTERVAL_SECONDS, State
from shrk_contract.v1 import link_pb2
from shrk_coordinator.control_plane.links import NAME_LENGTH_MAX, ContractBroken, Link
from shrk_coordinator.control_plane.questions import PROBES_MAX, Questions
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.probing import Probed
from support.states import a_report, new_link

ASK = link_pb2.NodeFrame(ask_verdict=link_pb2.AskVerdict())


class Side:
    """The coordinator around one link of node `a`, with time that a test turns."""

    def __init__(self, state: State = State.ONLINE) -> None:
        self.now = 100.0
        self.state = CoordinatorState()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.probes: list[tuple[str, str, asyncio.Future[Probed]]] = []
        self.sent: list[link_pb2.CoordinatorFrame] = []
        self.questions = Questions(
            self.state.roster,
            self._probe,
            lambda: self.now,
            lambda: 1_700_000_000_000,
            lambda seconds, work: self.later.append((seconds, work)),
        )
        self.link = self.a_link()
        self.state.handle(seen.NodeHello(self.now, "a", self.link.id, 1, owner="o", address="192.0.2.7"))
        self.state.handle(seen.NodeReported(self.now, "a", self.link.id, a_report("m", state=state)))

    def a_link(self) -> Link:
        return Link(
            new_link(),
            "a",
            "serial",
            [],
            lambda event: None,
            lambda: self.now,
            self._write,
            lambda link: None,
            on_asked=self.questions.asked,
        )

    async def _write(self, frames: list[link_pb2.CoordinatorFrame]) -> None:
        self.sent += frames

    async def _probe(self, node_id: str, model: str) -> Probed:
        answer: asyncio.Future[Probed] = asyncio.get_running_loop().create_future()
        self.probes.append((node_id, model, answer))
        return await answer

    def take(self, *frames: link_pb2.NodeFrame) -> None:
        """The node says this."""
        self.link.take(link_pb2.NodeBatch(frames=frames))

    async def told(self) -> list[link_pb2.CoordinatorFrame]:
        """All that the node was told since the last time."""
        writer = asyncio.create_task(self.link.outbox.run())
        try:
            await self.link.outbox.flushed()
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        sent, self.sent = self.sent, []
        return sent


def probe(number: int, model: str = "") -> link_pb2.NodeFrame:
    return link_pb2.NodeFrame(probe=link_pb2.Probe(probe_id=number, model=model))


async def test_a_node_is_told_its_verdict_with_its_state_its_checks_and_where_it_comes_from() -> None:
    side = Side()
    side.now += 3.0
    side.take(ASK)
    [frame] = await side.told()
    verdict = frame.verdict
    assert (verdict.state, verdict.eligible, verdict.address) == ("online", True, "192.0.2.7")
    assert (verdict.since_ms, verdict.at_unix_ms) == (3000, 1_700_000_000_000)
    assert [check.name for check in verdict.checks][:3] == ["connected", "identity", "heard"]
    assert [check.name for check in verdict.checks if not check.passed] == ["demand"]


async def test_what_failed_is_told_with_its_word_and_what_to_do() -> None:
    side = Side(State.COOLING)
    side.take(ASK)
    [frame] = await side.told()
    assert (frame.verdict.state, frame.verdict.eligible) == ("cooling", False)
    [hot] = [check for check in frame.verdict.checks if check.name == "temperature"]
    assert (hot.passed, hot.word, hot.next_action != "") == (False, "cooling", True)


async def test_of_several_questions_within_a_second_one_is_answered_and_that_at_its_end() -> None:
    side = Side()
    side.take(ASK)
    assert len(await side.told()) == 1
    side.now += 0.25
    side.take(ASK, ASK)
    side.take(ASK)
    assert await side.told() == []
    [(seconds, answer)] = side.later
    assert seconds == pytest.approx(VERDICT_INTERVAL_SECONDS - 0.25)
    side.now += seconds
    answer()
    assert len(await side.told()) == 1
    side.now += VERDICT_INTERVAL_SECONDS
    side.take(ASK)
    assert len(await side.told()) == 1


async def test_a_link_that_has_been_replaced_is_told_nothing() -> None:
    side = Side()
    side.state.handle(seen.NodeHello(side.now, "a", new_link(), 2, owner="o"))
    side.take(ASK)
    assert await side.told() == []


async def test_each_probe_is_answered_under_its_own_number() -> None:
    side = Side()
    side.take(probe(7, "m"), probe(8))
    await asyncio.sleep(0)
    assert [(node, model) for node, model, _ in side.probes] == [("a", "m"), ("a", "")]
    side.probes[1][2].set_result(Probed(False, "it is busy", "Wait.", "m"))
    side.probes[0][2].set_result(Probed(True, model="m", first_token_ms=12))
    await asyncio.gather(*side.questions._probes)
    second, first = (frame.probe_result for frame in sorted(await side.told(), key=lambda f: -f.probe_result.probe_id))
    assert (second.probe_id, second.passed, second.reason, second.next_action) == (8, False, "it is busy", "Wait.")
    assert (first.probe_id, first.passed, first.first_token_ms, first.model) == (7, True, 12, "m")


async def test_more_probes_than_may_run_together_are_refused_at_once() -> None:
    side = Side()
    side.take(*(probe(number) for number in range(PROBES_MAX + 1)))
    [frame] = await side.told()
    assert (frame.probe_result.probe_id, frame.probe_result.passed) == (PROBES_MAX, False)
    await side.questions.stop()
    assert side.questions._probes == set()


async def test_a_probe_of_a_name_longer_than_any_breaks_the_contract() -> None:
    with pytest.raises(ContractBroken):
        Side().take(probe(1, "x" * (NAME_LENGTH_MAX + 1)))
