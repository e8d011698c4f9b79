"""The driver with an engine played by hand: an attempt is always answered, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shrk_contract.terms import Endpoint, Pin, State
from shrk_contract.v1 import link_pb2
from shrk_node_agent.attempts import Credit, Envelope, Order
from shrk_node_agent.driver import Driver
from shrk_node_agent.engine.engine import EngineEvent, EngineProcess, EngineReady, EngineSpec
from shrk_node_agent.link.session import Session, SessionPort, SessionSink
from support.played_engine import DONE, Play, chat_event, event, played_engine, streaming, whole
from support.simulated_engine import until

ENVELOPE = Envelope("chatcmpl-ours", 1, "m", "call_")


@dataclass
class _Process:
    """An engine's process that needs no starting and no stopping."""

    socket: Path

    def pids(self) -> tuple[int, ...]:
        return ()

    async def stop(self, grace_seconds: float) -> None:
        """Whoever plays the engine ends it."""


@dataclass
class Desk:
    """A driver with one ready engine, and what it sent to its coordinator."""

    driver: Driver
    session: Session
    sent: list[link_pb2.NodeFrame]

    async def answer(self, *, streaming: bool = True, body: bytes = b"{}") -> link_pb2.NodeFrame:
        """Order one answer; the frame that ended it."""
        sink = SessionSink(self.session, 1, Credit(1 << 18))
        self.driver.ordered(sink.key, Order(Endpoint.CHAT_COMPLETIONS, "m", streaming, ENVELOPE, body), sink)
        await self.driver.drained()
        await until(lambda: bool(self.sent) and self.sent[-1].WhichOneof("frame") in {"finish", "failure"})
        return self.sent[-1]


@asynccontextmanager
async def a_desk(play: Play) -> AsyncIterator[Desk]:
    async with played_engine(play) as engine:

        async def start(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
            ready = EngineReady(Pin(), (Endpoint.CHAT_COMPLETIONS,), slots=1, context_tokens=128)
            asyncio.get_running_loop().call_soon(on_event, ready)
            return _Process(engine.socket)

        sent: list[link_pb2.NodeFrame] = []

        async def write(frames: list[link_pb2.NodeFrame]) -> None:
            sent.extend(frames)

        driver = Driver([EngineSpec("m", "m", "unused")], start, changed=lambda: None)
        port = SessionPort(driver.ordered, unknown=lambda sink: None, cancelled=driver.cancelled)
        session = Session(port, write)
        work = [asyncio.create_task(driver.run()), asyncio.create_task(session.outbox.run())]
        try:
            await until(lambda: driver.state.engines["m"].state is State.ONLINE)
            yield Desk(driver, session, sent)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await driver.stop()


async def test_an_answer_goes_from_the_engine_to_the_coordinator() -> None:
    play = streaming(chat_event("a", 5), chat_event("", 2, end="stop"), DONE)
    async with a_desk(play) as desk:
        assert (await desk.answer()).finish.end_index == 2


SURPRISES: dict[str, tuple[Play, dict[str, Any]]] = {
    "a token id below zero": (streaming(chat_event("a", -5), DONE), {}),
    "usage that is a number": (streaming(chat_event("", 5, end="stop"), event(choices=[], usage=7), DONE), {}),
    "whole usage that is a number": (
        whole({"choices": [{"index": 0, "finish_reason": "stop"}], "usage": 7}),
        {"streaming": False},
    ),
    "ends that cannot be sorted": (
        streaming(*(event(choices=[{"index": i, "text": "", "finish_reason": "stop"}]) for i in (None, 0)), DONE),
        {},
    ),
    "a body that is no object": (whole({}), {"body": b"[]"}),
}


@pytest.mark.parametrize("surprise", SURPRISES)
async def test_an_attempt_that_dies_of_a_surprise_is_reported_at_once(surprise: str) -> None:
    play, asking = SURPRISES[surprise]
    async with a_desk(play) as desk:
        frame = await desk.answer(**asking)
        assert desk.driver.state.engines["m"].in_flight == 0
        assert desk.session.open_attempts() == []
    assert frame.failure.fault == link_pb2.FAULT_NODE
    assert frame.failure.code == "agent_error"


async def test_a_change_of_the_link_grows_the_revision_that_commands_wait_for() -> None:
    heard: list[int] = []
    driver = Driver([], _nothing_starts, changed=lambda: heard.append(driver.state.revision))
    driver.link_changed()
    assert heard == [1]


async def _nothing_starts(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
    raise AssertionError(spec)
