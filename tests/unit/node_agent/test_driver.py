"""The driver with an engine played by hand: an attempt is always answered, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shrk_contract.terms import Endpoint, Pin, State
from shrk_contract.v1 import link_pb2
from shrk_node_agent.attempts import Credit, Envelope, Order
from shrk_node_agent.driver import HUNG_STOP_SECONDS, Driver
from shrk_node_agent.engine.engine import (
    EngineEvent,
    EngineExited,
    EngineLoading,
    EngineProcess,
    EngineReady,
    EngineSpec,
)
from shrk_node_agent.link.session import Session, SessionPort, SessionSink
from shrk_node_agent.state.events import Tick
from shrk_node_agent.state.liveness import Phase
from support.played_engine import (
    DONE,
    Play,
    PlayedEngine,
    chat_event,
    event,
    played_engine,
    send_parts,
    streaming,
    whole,
)
from support.simulated_engine import until

ENVELOPE = Envelope("chatcmpl-ours", 1, "m", "call_")


@dataclass
class _Process:
    """An engine's process that needs no starting and no stopping."""

    socket: Path

    def pids(self) -> tuple[int, ...]:
        return ()

    async def crash(self) -> str:
        return ""

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
        port = SessionPort(driver.ordered, lambda sink: None, driver.cancelled, driver.assign)
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


#: What an engine sends, what is asked of it, and what that is called.
SURPRISES: dict[str, tuple[Play, dict[str, Any], str]] = {
    "a token id below zero": (streaming(chat_event("a", -5), DONE), {}, "engine_empty"),
    "usage that is a number": (
        streaming(chat_event("", 5, end="stop"), event(choices=[], usage=7), DONE),
        {},
        "engine_nonsense",
    ),
    "whole usage that is a number": (
        whole({"choices": [{"index": 0, "finish_reason": "stop"}], "usage": 7}),
        {"streaming": False},
        "agent_error",
    ),
    "ends that cannot be sorted": (
        streaming(*(event(choices=[{"index": i, "text": "", "finish_reason": "stop"}]) for i in (None, 0)), DONE),
        {},
        "engine_nonsense",
    ),
    "a body that is no object": (whole({}), {"body": b"[]"}, "agent_error"),
}


@pytest.mark.parametrize("surprise", SURPRISES)
async def test_an_attempt_that_dies_of_a_surprise_is_reported_at_once(surprise: str) -> None:
    play, asking, code = SURPRISES[surprise]
    async with a_desk(play) as desk:
        frame = await desk.answer(**asking)
        assert desk.driver.state.engines["m"].in_flight == 0
        assert desk.session.open_attempts() == []
    ours = code == "agent_error"
    assert frame.failure.fault == (link_pb2.FAULT_NODE if ours else link_pb2.FAULT_ENGINE)
    assert frame.failure.code == code


async def test_a_change_of_the_link_grows_the_revision_that_commands_wait_for() -> None:
    heard: list[int] = []
    driver = Driver([], _nothing_starts, changed=lambda: heard.append(driver.state.revision))
    driver.link_changed()
    assert heard == [1]


# --- an engine that hangs, in played time --------------------------------------------------------------


@dataclass
class _Watched:
    """A process that is told to stop, and tells its end when a test says so."""

    socket: Path
    on_event: Callable[[EngineEvent], None]
    stopped: list[float] = field(default_factory=list)
    #: How it crashed, once that is known.
    crashed: asyncio.Future[str] = field(default_factory=asyncio.Future)
    asked: int = 0

    def pids(self) -> tuple[int, ...]:
        return ()

    async def crash(self) -> str:
        self.asked += 1
        return await asyncio.shield(self.crashed)

    async def stop(self, grace_seconds: float) -> None:
        self.stopped.append(grace_seconds)

    def end(self) -> None:
        self.on_event(EngineExited(-9, (), incompatible=False, reason="Stopped"))


@dataclass
class Ward:
    """A driver with one ready engine and a clock of its own; what it sent, and how often its status was to be told."""

    driver: Driver
    session: Session
    engine: PlayedEngine
    lives: list[_Watched]
    sent: list[link_pb2.NodeFrame]
    told: list[State]
    now: float

    def order(self, stream: int) -> None:
        sink = SessionSink(self.session, stream, Credit(1 << 18))
        order = Order(Endpoint.CHAT_COMPLETIONS, "m", streaming=True, envelope=ENVELOPE, body=b'{"stream": true}')
        self.driver.ordered(sink.key, order, sink)

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds)):
            self.now += 1
            self.driver.post(Tick(self.now))

    def ended(self) -> list[tuple[int, str]]:
        """(stream, code) of every attempt that failed."""
        frames = [frame.failure for frame in self.sent if frame.WhichOneof("frame") == "failure"]
        return [(failure.stream, failure.code) for failure in frames]


@asynccontextmanager
async def a_ward(play: Play) -> AsyncIterator[Ward]:
    async with played_engine(play) as engine:
        lives: list[_Watched] = []

        async def start(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
            ready = EngineReady(Pin(), (Endpoint.CHAT_COMPLETIONS,), slots=4, context_tokens=128)
            asyncio.get_running_loop().call_soon(on_event, ready)
            lives.append(_Watched(engine.socket, on_event))
            return lives[-1]

        sent: list[link_pb2.NodeFrame] = []

        async def write(frames: list[link_pb2.NodeFrame]) -> None:
            sent.extend(frames)

        told: list[State] = []
        driver = Driver([EngineSpec("m", "m", "unused")], start, lambda: told.append(driver.state.engines["m"].state))
        session = Session(SessionPort(driver.ordered, lambda sink: None, driver.cancelled, driver.assign), write)
        writer = asyncio.create_task(session.outbox.run())
        ward = Ward(driver, session, engine, lives, sent, told, driver.now())
        try:
            ward.tick(1)
            await until(lambda: driver.state.engines["m"].state is State.ONLINE)
            yield ward
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await driver.stop()


async def _silence(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_engine_that_hangs_loses_its_attempts_at_once_is_ended_and_started_again() -> None:
    async with a_ward(_silence) as ward:
        ward.order(1)
        ward.order(2)
        await until(lambda: len(ward.engine.asked) == 2)
        ward.tick(15)
        ward.order(3)
        await until(lambda: len(ward.ended()) == 2)
        assert ward.ended() == [(1, "engine_hung"), (2, "engine_hung")]
        assert ward.told[-1] is State.STARTING
        await ward.driver.drained()
        assert [frame.rejected.stream for frame in ward.sent if frame.WhichOneof("frame") == "rejected"] == [3]
        [life] = ward.lives
        assert life.stopped == [HUNG_STOP_SECONDS]
        await until(lambda: ward.engine.connections() == 0)
        life.end()
        ward.tick(2)
        await until(lambda: ward.driver.state.engines["m"].state is State.ONLINE)
        assert len(ward.lives) == 2
        ward.order(4)
        await until(lambda: len(ward.engine.asked) > 2)
        assert len(ward.ended()) == 2


async def test_a_hung_engine_that_ends_by_itself_meanwhile_is_started_again_once() -> None:
    async with a_ward(_silence) as ward:
        ward.order(1)
        ward.tick(15)
        ward.lives[0].end()
        await until(lambda: bool(ward.lives[0].stopped))
        ward.tick(5)
        await until(lambda: len(ward.lives) == 2)
        ward.tick(5)
        await asyncio.sleep(0)
        assert len(ward.lives) == 2


async def test_a_quiet_engine_that_answers_a_canary_goes_on_with_what_it_does() -> None:
    async def only_canaries(request: web.Request) -> web.StreamResponse:
        if b'"max_tokens":1' in await request.read():
            return web.json_response({})
        return await _silence(request)

    async with a_ward(only_canaries) as ward:
        ward.order(1)
        engine = ward.driver.state.engines["m"]
        for _ in range(5):
            ward.tick(6)
            assert engine.liveness is not None
            assert engine.liveness.phase is Phase.ASKED
            await until(lambda: engine.liveness is not None and engine.liveness.phase is Phase.MOVING)
        assert (ward.ended(), engine.in_flight) == ([], 1)


# --- an engine that crashes --------------------------------------------------------------------------------


async def _break_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _speak_and_break_off(request: web.Request) -> web.StreamResponse:
    await send_parts(request, chat_event("a", 5))
    return await _break_off(request)


@pytest.mark.parametrize(
    ("crash", "code", "message"),
    [("SIGSEGV", "engine_crashed", "the engine crashed (SIGSEGV)"), ("", "engine_lost", "the engine broke off: ")],
)
async def test_an_attempt_that_is_lost_without_a_token_waits_for_how_its_engine_ended(
    crash: str, code: str, message: str
) -> None:
    async with a_ward(_break_off) as ward:
        ward.order(1)
        ward.order(2)
        [life] = ward.lives
        await until(lambda: life.asked == 2)
        assert ward.ended() == []
        life.crashed.set_result(crash)
        await until(lambda: len(ward.ended()) == 2)
        assert sorted(ward.ended()) == [(1, code), (2, code)]
        failures = [frame.failure for frame in ward.sent if frame.WhichOneof("frame") == "failure"]
        assert all(failure.message.startswith(message) for failure in failures)
        assert {failure.fault for failure in failures} == {link_pb2.FAULT_ENGINE}


async def test_an_engine_whose_end_does_not_become_known_was_only_lost() -> None:
    async with a_ward(_break_off) as ward:
        ward.order(1)
        await until(lambda: bool(ward.ended()))
        assert (ward.ended(), ward.lives[0].asked) == ([(1, "engine_lost")], 1)


async def test_an_attempt_that_has_sent_a_piece_fails_at_once() -> None:
    async with a_ward(_speak_and_break_off) as ward:
        ward.order(1)
        await until(lambda: bool(ward.ended()))
        assert (ward.ended(), ward.lives[0].asked) == ([(1, "engine_lost")], 0)


async def test_a_coordinator_that_cancels_meanwhile_hears_nothing_more() -> None:
    async with a_ward(_break_off) as ward:
        ward.order(1)
        await until(lambda: ward.lives[0].asked == 1)
        ward.driver.cancelled(next(iter(ward.driver.state.attempts)))
        await ward.driver.drained()
        assert ward.ended() == []


async def _nothing_starts(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
    raise AssertionError(spec)


async def test_a_model_that_does_not_come_is_shown_on_its_way_and_never_laid_at_the_engines_door() -> None:
    asked = asyncio.get_running_loop().create_future()

    async def tell_later(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
        asked.set_result(on_event)
        return _Watched(Path("nowhere"), on_event)

    driver = Driver([EngineSpec("m", "m", "org/m")], tell_later, lambda: None)
    driver.post(Tick(driver.now()))
    tell = await asked
    tell(EngineLoading("downloading: 1.0 GB of 2.0 GB", 0.5, downloading=True))
    engine = driver.state.engines["m"]
    assert (engine.state, engine.detail, engine.progress) == (
        State.DOWNLOADING,
        "downloading: 1.0 GB of 2.0 GB",
        0.5,
    )
    tell(EngineExited(None, (), False, "no network", fetching=True))
    assert (engine.state, engine.reason, engine.barren_starts, engine.failures) == (State.STARTING, "no network", 0, 1)
