"""Every answer of the simulated engine, cut after every token and continued: the caller sees one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Endpoint, Fault, ResumeMethod
from shrk_node_agent.attempts import Order
from shrk_node_agent.engine.exchange import EngineClient
from support.continued import answered, check_seamless, event_by_event, order_of, resumed, said, unbroken
from support.played_engine import played_engine
from support.simulated_engine import MODEL, simulated_engine

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SHOWN = {"return_token_ids": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "minItems": 3}}}
JSON_ANSWER = {"type": "json_schema", "json_schema": {"name": "user", "schema": SCHEMA}}


def chat(**body: Any) -> Order:
    messages = [{"role": "user", "content": "weather in eindhoven?"}]
    return order_of(Endpoint.CHAT_COMPLETIONS, {"model": MODEL, "messages": messages, **body})


def completion(**body: Any) -> Order:
    return order_of(Endpoint.COMPLETIONS, {"model": MODEL, "prompt": "once upon", "max_tokens": 40, **body})


ORDERS: dict[str, Callable[[], Order]] = {
    "text": chat,
    "text that is sampled, with ids and usage shown": lambda: chat(temperature=1.0, **SHOWN),
    "text that its length ends": lambda: chat(max_tokens=9, min_tokens=5),
    "a tool call": lambda: chat(tools=[WEATHER]),
    "a tool call that its length ends": lambda: chat(tools=[WEATHER], max_tokens=30),
    "a completion": completion,
    "a completion that may not end early": lambda: completion(min_tokens=30, temperature=0.8, seed=3),
    "json": lambda: chat(response_format=JSON_ANSWER),
    "text up to a stop string": lambda: chat(stop=["er "]),
}
#: These begin anew at a seam.
REPLAYED_ONLY = ("json", "text up to a stop string")


@dataclass
class Engines:
    """Clients of one simulated engine: as it is, with every token in a piece of its own, and with four in one."""

    plain: EngineClient
    fine: EngineClient
    coarse: EngineClient


@asynccontextmanager
async def a_client(socket: Path) -> AsyncIterator[EngineClient]:
    client = EngineClient(socket, runner="v2")
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture(scope="module")
async def engines() -> AsyncIterator[Engines]:
    async with simulated_engine() as engine:
        assert isinstance(engine.session.connector, aiohttp.UnixConnector)
        async with (
            played_engine(event_by_event(engine.session)) as one_by_one,
            played_engine(event_by_event(engine.session, at_once=4)) as by_fours,
            a_client(Path(engine.session.connector.path)) as plain,
            a_client(one_by_one.socket) as fine,
            a_client(by_fours.socket) as coarse,
        ):
            yield Engines(plain, fine, coarse)


@pytest.mark.parametrize("method", list(ResumeMethod))
@pytest.mark.parametrize("name", ORDERS)
async def test_at_every_cut_the_answer_goes_on_without_a_seam(
    engines: Engines, name: str, method: ResumeMethod
) -> None:
    order = ORDERS[name]()
    first = await unbroken(engines.fine, order)
    assert len(first.pieces) >= said(first.pieces).tokens - 1 > 5, "it is cut after every token"
    for pieces in range(1, len(first.pieces)):
        rest = await answered(engines.plain, resumed(order, first, pieces, method))
        if method is ResumeMethod.BY_IDS and name in REPLAYED_ONLY:
            assert rest.failed is not None
            assert (rest.failed.code, rest.pieces) == (CANNOT_RESUME, [])
        else:
            check_seamless(first, pieces, rest)


@pytest.mark.parametrize("method", list(ResumeMethod))
@pytest.mark.parametrize("name", [name for name in ORDERS if name not in REPLAYED_ONLY])
async def test_engines_that_group_their_tokens_unlike_each_other_go_on_from_each_other(
    engines: Engines, name: str, method: ResumeMethod
) -> None:
    order = ORDERS[name]()
    for one, other in ((engines.coarse, engines.fine), (engines.fine, engines.coarse)):
        first = await unbroken(one, order)
        for pieces in range(1, len(first.pieces)):
            check_seamless(first, pieces, await answered(other, resumed(order, first, pieces, method)))


async def test_an_answer_that_broke_off_twice_goes_on_twice(engines: Engines) -> None:
    order = chat(tools=[WEATHER])
    first = await unbroken(engines.fine, order)
    second = await answered(engines.fine, resumed(order, first, 12, ResumeMethod.BY_IDS))
    joined = replace(first, pieces=[*first.pieces[:12], *second.pieces])
    for method in ResumeMethod:
        check_seamless(joined, 25, await answered(engines.plain, resumed(order, joined, 25, method)))


@pytest.mark.parametrize(
    ("method", "fault", "code"),
    [(ResumeMethod.BY_IDS, Fault.ENGINE, CANNOT_RESUME), (ResumeMethod.REPLAY, Fault.NODE, DIVERGED)],
)
@pytest.mark.parametrize("name", ["text", "a tool call", "a completion"])
async def test_what_does_not_begin_with_what_was_delivered_is_not_sent(
    engines: Engines, name: str, method: ResumeMethod, fault: Fault, code: str
) -> None:
    order = ORDERS[name]()
    first = await unbroken(engines.fine, order)
    for pieces in (1, 8, len(first.pieces) - 1):
        asking = resumed(order, first, pieces, method)
        assert asking.resume is not None
        wrong = replace(asking.resume, text_digest=asking.resume.text_digest ^ 1)
        heard = await answered(engines.plain, replace(asking, resume=wrong))
        assert heard.failed is not None
        assert (heard.failed.fault, heard.failed.code, heard.pieces) == (fault, code, [])


async def test_a_replay_with_another_seed_diverges(engines: Engines) -> None:
    order = chat(temperature=1.0)
    first = await unbroken(engines.fine, order)
    heard = await answered(engines.plain, replace(resumed(order, first, 5, ResumeMethod.REPLAY), seed=8))
    assert heard.failed is not None
    assert (heard.failed.code, heard.pieces) == (DIVERGED, [])
