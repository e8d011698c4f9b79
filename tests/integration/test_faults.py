"""What breaks behind the coordinator, and what a caller sees of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from shrk_coordinator.records import pseudonym
from support.network import Network, a_network, events_of, until


def a_chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, **fields}


@pytest.fixture
async def slow_network() -> AsyncIterator[Network]:
    """Two nodes that take a while before the first token, so that a test can act in between."""
    async with a_network() as network:
        await network.add_simulated("one", "m", first_token_ms=1500, tokens_per_second=20)
        await network.add_simulated("two", "m", first_token_ms=1500, tokens_per_second=20)
        await network.until_serving("m", 2)
        yield network


async def node_that_got_it(network: Network) -> str:
    """The name of the node with an attempt under way."""
    state = network.coordinator.driver.state
    await until(lambda: bool(state.attempts.by_stream), "an attempt under way")
    [attempt] = state.attempts.by_stream.values()
    return state.roster.nodes[attempt.node_id].owner


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("victim", ["agent", "engine"])
async def test_kill_9_before_the_first_byte_costs_the_caller_only_time(
    slow_network: Network, victim: str, streaming: bool
) -> None:
    network = slow_network
    async with network.session() as session:
        asking = asyncio.create_task(post(session, network, a_chat(stream=streaming, max_tokens=5)))
        name = await node_that_got_it(network)
        node = network.nodes[name]
        status = await node.status()
        os.kill(node.pid if victim == "agent" else status["engines"][0]["pids"][0], signal.SIGKILL)
        code, body, headers = await asking
    assert code == 200, body
    if streaming:
        events = events_of(body)
        assert events[-1] == "[DONE]"
        assert "error" not in str(events)
    survivor = "two" if name == "one" else "one"
    [served] = [n for n in network.coordinator.driver.state.roster.nodes.values() if n.owner == survivor]
    assert headers["x-shiver-node"] == pseudonym(served.node_id)


async def test_an_agent_that_freezes_is_given_up_and_its_request_moves(slow_network: Network) -> None:
    network = slow_network
    async with network.session() as session:
        # SIGSTOP before it can accept: the coordinator's deadline for `accepted` is what notices.
        for node in network.nodes.values():
            os.kill(node.pid, signal.SIGSTOP)
        asking = asyncio.create_task(post(session, network, a_chat(max_tokens=3)))
        frozen = await node_that_got_it(network)
        for name, node in network.nodes.items():
            if name != frozen:
                os.kill(node.pid, signal.SIGCONT)
        code, body, _ = await asking
        os.kill(network.nodes[frozen].pid, signal.SIGCONT)
    assert code == 200, body


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_caller_that_leaves_stops_the_engine(slow_network: Network, streaming: bool) -> None:
    network = slow_network
    session = network.session()
    asking = asyncio.create_task(post(session, network, a_chat(stream=streaming, ignore_eos=True, max_tokens=4000)))
    name = await node_that_got_it(network)
    connector = aiohttp.UnixConnector(str(network.nodes[name].engine_socket()))
    async with aiohttp.ClientSession(connector=connector) as engine:

        async def until_load(wanted: int) -> None:
            load = -1
            while load != wanted:
                await asyncio.sleep(0.02)  # an engine tells its load only when asked
                async with engine.get("http://engine/load") as answer:
                    load = (await answer.json())["server_load"]

        await until_load(1)
        asking.cancel()
        await session.close()
        await until_load(0)
    assert not network.coordinator.driver.state.attempts.by_stream
    assert not network.coordinator.driver.open_requests


async def test_a_node_that_stops_in_good_order_lets_its_answers_end(slow_network: Network) -> None:
    network = slow_network
    async with network.session() as session:
        asking = asyncio.create_task(post(session, network, a_chat(stream=True, ignore_eos=True, max_tokens=20)))
        name = await node_that_got_it(network)
        os.kill(network.nodes[name].pid, signal.SIGTERM)
        code, body, _ = await asking
    assert code == 200
    assert events_of(body)[-1] == "[DONE]"
    await network.nodes.pop(name).process.wait()
    await network.until_serving("m", 1)


async def test_a_stopping_coordinator_takes_nothing_new_and_lets_streams_end(slow_network: Network) -> None:
    network = slow_network
    async with network.session() as session:
        asking = asyncio.create_task(post(session, network, a_chat(stream=True, ignore_eos=True, max_tokens=20)))
        await node_that_got_it(network)
        draining = asyncio.create_task(network.coordinator.drain())
        await asyncio.sleep(0)
        refused, _, headers = await post(session, network, a_chat())
        assert (refused, int(headers["Retry-After"]) <= 30) == (503, True)
        code, body, _ = await asking
        await draining
    assert code == 200
    assert events_of(body)[-1] == "[DONE]"


async def test_what_is_left_when_the_drain_of_a_coordinator_is_over_ends_in_words() -> None:
    async with a_network(drain_seconds=0) as network:
        await network.add_simulated("one", "m", tokens_per_second=20)
        await network.until_serving("m", 1)
        endless = {"ignore_eos": True, "max_tokens": 4000}
        async with network.session() as session:
            whole = asyncio.create_task(post(session, network, a_chat(**endless)))
            async with session.post(
                f"{network.base_url}/chat/completions", json=a_chat(stream=True, **endless)
            ) as answer:
                body = await answer.content.readuntil(b"\n\n")
                await until(lambda: network.coordinator.driver.open_requests == 2, "two requests under way")
                await network.coordinator.drain()
                stopping = asyncio.create_task(network.coordinator.stop())
                body += await answer.content.read()
            code, told, headers = await whole
            await stopping
    assert events_of(body)[-1]["error"]["code"] == "coordinator_stopping"
    assert "[DONE]" not in events_of(body)
    assert (code, int(headers["Retry-After"]) <= 30) == (503, True)
    assert b"coordinator_stopping" in told


async def test_when_no_node_is_left_the_caller_hears_503_and_when_to_come_back(slow_network: Network) -> None:
    network = slow_network
    for name in list(network.nodes):
        await network.stop_node(name)
    await network.until_serving("m", 0)
    async with network.session() as session:
        code, body, headers = await post(session, network, a_chat())
    assert code == 503
    assert b"no_node_available" in body
    assert 0 < int(headers["Retry-After"]) <= 30


async def post(session: aiohttp.ClientSession, network: Network, body: dict[str, Any]) -> tuple[int, bytes, Any]:
    async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
        return answer.status, await answer.read(), answer.headers
