"""Feeling an engine's pulse, against an engine played by hand: what is told, and that silence is told by nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from shrk_contract.terms import Endpoint, Fault, Rejection
from shrk_node_agent.attempts import Credit, Envelope, Failed, Finished, Order, Piece
from shrk_node_agent.engine.engine import EngineSpec, Task
from shrk_node_agent.engine.pulse import Pulse
from support.played_engine import Play, PlayedEngine, played_engine, whole
from support.simulated_engine import Plan, simulated_engine, until

CHAT, COMPLETIONS, EMBEDDINGS = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS

#: As vLLM writes it, shortened.
METRICS = """# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m {x} y"} 17.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 5.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:num_requests_waiting{engine="0",model_name="m"} 9.0
"""


@dataclass
class Desk:
    """A pulse, and what it told."""

    pulse: Pulse
    engine: PlayedEngine
    paths: list[str]
    figures: list[tuple[str, ...]] = field(default_factory=list)
    tokens: list[bool] = field(default_factory=list)


@asynccontextmanager
async def a_desk(play: Play, *endpoints: Endpoint, task: Task = Task.GENERATE) -> AsyncIterator[Desk]:
    paths: list[str] = []

    async def noted(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return await play(request)

    async with played_engine(noted) as engine:
        spec = EngineSpec("e", "m", "unused", task)
        pulse = Pulse(
            spec,
            engine.socket,
            endpoints,
            on_figures=lambda figures: desk.figures.append(figures),
            on_token=lambda: desk.tokens.append(True),
        )
        desk = Desk(pulse, engine, paths)
        try:
            yield desk
        finally:
            pulse.stop()


async def over(desk: Desk) -> None:
    """Return once nothing is under way: of questions that tell nothing there is no event."""
    await until(lambda: desk.engine.connections() == 0 and bool(desk.paths))
    for _ in range(3):
        await asyncio.sleep(0)


def page(text: str, status: int = 200) -> Play:
    async def play(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status)

    return play


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_the_figures_that_only_a_working_core_moves_are_told_as_written() -> None:
    async with a_desk(page(METRICS)) as desk:
        desk.pulse.read_figures()
        await until(lambda: bool(desk.figures))
        assert (desk.figures, desk.paths) == ([("17.0", "5.0", "0.25")], ["/metrics"])


@pytest.mark.parametrize(("play", "told"), [(page("", 404), [()]), (page("{}"), [()]), (page(METRICS, 500), [])])
async def test_an_engine_without_figures_says_so_and_one_that_fails_says_nothing(
    play: Play, told: list[tuple[str, ...]]
) -> None:
    async with a_desk(play) as desk:
        desk.pulse.read_figures()
        await over(desk)
        assert desk.figures == told


async def test_the_simulated_engine_tells_figures_that_its_work_moves() -> None:
    async with simulated_engine(Plan("m")) as engine:
        connector = engine.session.connector
        assert isinstance(connector, aiohttp.UnixConnector)
        figures: list[tuple[str, ...]] = []
        pulse = Pulse(EngineSpec("e", "m", "unused"), Path(connector.path), (CHAT,), figures.append, lambda: None)
        pulse.read_figures()
        await until(lambda: len(figures) == 1)
        messages = [{"role": "user", "content": "hello"}]
        await engine.post("/v1/chat/completions", model="m", messages=messages)
        pulse.read_figures()
        await until(lambda: len(figures) == 2)
        assert figures[0] != figures[1]


@pytest.mark.parametrize(
    ("task", "endpoints", "asked"),
    [
        (Task.GENERATE, (CHAT, COMPLETIONS), COMPLETIONS),
        (Task.GENERATE, (CHAT,), CHAT),
        (Task.EMBED, (EMBEDDINGS,), EMBEDDINGS),
    ],
)
async def test_a_canary_is_one_token_from_what_the_engine_offers(
    task: Task, endpoints: tuple[Endpoint, ...], asked: Endpoint
) -> None:
    async with a_desk(whole({}), *endpoints, task=task) as desk:
        desk.pulse.ask_canary()
        await until(lambda: bool(desk.tokens))
        [body] = desk.engine.asked
        assert (desk.paths, body["model"]) == ([asked], "m")
        assert body.get("temperature", 0) == 0
        assert body.get("max_tokens", 1) == 1


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_a_canary_that_is_refused_is_no_sign_of_life(status: int) -> None:
    async with a_desk(whole({}, status), CHAT) as desk:
        desk.pulse.ask_canary()
        await over(desk)
        assert desk.tokens == []


async def test_an_engine_that_is_gone_is_told_by_nothing_and_harms_nobody() -> None:
    async with a_desk(never, CHAT) as desk:
        desk.engine.socket.unlink()
        desk.pulse.read_figures()
        desk.pulse.ask_canary()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (desk.tokens, desk.figures, desk.paths) == ([], [], [])


async def test_a_new_canary_takes_the_place_of_the_last() -> None:
    async with a_desk(never, CHAT) as desk:
        desk.pulse.ask_canary()
        await until(lambda: len(desk.paths) == 1)
        desk.pulse.ask_canary()
        await until(lambda: len(desk.paths) == 2)
        await until(lambda: desk.engine.connections() == 1)


async def test_figures_are_read_once_at_a_time() -> None:
    async with a_desk(never, CHAT) as desk:
        desk.pulse.read_figures()
        await until(lambda: len(desk.paths) == 1)
        desk.pulse.read_figures()
        desk.pulse.ask_canary()
        await until(lambda: CHAT in desk.paths)
        assert desk.paths == ["/metrics", CHAT]


async def test_a_pulse_that_is_stopped_leaves_no_question_in_the_engine() -> None:
    async with a_desk(never, CHAT) as desk:
        desk.pulse.ask_canary()
        desk.pulse.read_figures()
        await until(lambda: len(desk.paths) == 2)
        desk.pulse.stop()
        await until(lambda: desk.engine.connections() == 0)
        assert (desk.tokens, desk.figures) == ([], [])


class Heard:
    """An attempt's sink that writes down what it is told, and gives credit."""

    def __init__(self, credit: int = 1 << 20) -> None:
        self.credit = Credit(credit)
        self.told: list[object] = []

    def accept(self) -> None:
        self.told.append("accept")

    def reject(self, reason: Rejection, message: str) -> None:
        self.told.append(reason)

    def prompt(self, token_ids: object) -> None:
        self.told.append(token_ids)

    async def piece(self, piece: Piece) -> None:
        await self.credit.spend(len(piece.part))
        self.told.append(piece)

    def finish(self, finished: Finished) -> None:
        self.told.append(finished)

    def fail(self, failed: Failed) -> None:
        self.told.append(failed)


PIECE = Piece(1, (5,), b"part")
FINISHED = Finished(())
FAILED = Failed(Fault.ENGINE, "broke")


def an_order(endpoint: Endpoint = CHAT) -> Order:
    return Order(endpoint, "m", streaming=True, envelope=Envelope("id", 1, "m", "call_"), body=b"{}")


async def test_pieces_are_counted_and_passed_on() -> None:
    async with a_desk(never) as desk:
        heard = Heard()
        watched = desk.pulse.watch(an_order(), heard)
        watched.accept()
        watched.reject(Rejection.BUSY, "full")
        watched.prompt([1, 2])
        assert not desk.pulse.moved()
        await watched.piece(PIECE)
        assert desk.pulse.moved()
        assert not desk.pulse.moved()
        watched.finish(FINISHED)
        assert heard.told == ["accept", Rejection.BUSY, [1, 2], PIECE, FINISHED]
        assert (desk.pulse.pieces, desk.pulse.held) == (1, 0)


async def test_an_answer_that_waits_for_credit_is_told_apart_until_it_has_some() -> None:
    async with a_desk(never) as desk:
        heard = Heard(credit=0)
        sending = asyncio.create_task(desk.pulse.watch(an_order(), heard).piece(PIECE))
        await asyncio.sleep(0)
        assert desk.pulse.moved()
        assert desk.pulse.held == 1
        assert not desk.pulse.moved()
        heard.credit.give(100)
        await sending
        assert desk.pulse.moved()
        assert desk.pulse.held == 0


async def test_an_answer_that_is_cancelled_while_it_waits_for_credit_waits_no_more() -> None:
    async with a_desk(never) as desk:
        sending = asyncio.create_task(desk.pulse.watch(an_order(), Heard(credit=0)).piece(PIECE))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert desk.pulse.held == 0


async def test_counting_a_prompt_is_no_sign_of_life_since_the_front_end_does_it() -> None:
    async with a_desk(never) as desk:
        await desk.pulse.watch(an_order(Endpoint.COUNT_TOKENS), Heard()).piece(PIECE)
        assert not desk.pulse.moved()


async def test_an_attempt_ends_once_whoever_ends_it_first() -> None:
    async with a_desk(never) as desk:
        failed, finished = Heard(), Heard()
        one, other = desk.pulse.watch(an_order(), failed), desk.pulse.watch(an_order(), finished)
        one.fail(FAILED)
        other.finish(FINISHED)
        for watched in (one, other):
            watched.fail(FAILED)
            watched.finish(FINISHED)
        assert (failed.told, finished.told) == ([FAILED], [FINISHED])


async def test_an_end_that_cannot_be_told_is_none_and_another_may_follow() -> None:
    class Choosy(Heard):
        def finish(self, finished: Finished) -> None:
            raise ValueError(finished)

    async with a_desk(never) as desk:
        heard = Choosy()
        watched = desk.pulse.watch(an_order(), heard)
        with pytest.raises(ValueError, match="Finished"):
            watched.finish(FINISHED)
        watched.fail(FAILED)
        assert heard.told == [FAILED]
