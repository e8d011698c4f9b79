"""An answer whose node is lost goes on from another one, and its caller cannot tell: real processes, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from shrk_coordinator.records import Scope
from support.answers import Assembled, assembled
from support.network import Network, NodeProcess, a_network, events_of

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
KINDS: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "user", "content": "tell me a story"}]},
    "tool call": {"messages": [{"role": "user", "content": "weather in eindhoven"}], "tools": [WEATHER]},
    "structured output": {
        "messages": [{"role": "user", "content": "a user"}],
        "response_format": {"type": "json_object"},
    },
}
#: How each kind is expected to go on: by ids wherever that is exact.
METHODS = {"text": "by_ids", "tool call": "by_ids", "structured output": "replay"}


@pytest.fixture(scope="module")
async def network() -> AsyncIterator[Network]:
    """Three equal nodes, slow enough that a test can act between two tokens."""
    async with a_network() as network:
        for name in ("one", "two", "three"):
            await add(network, name)
        await network.until_serving("m", 3)
        yield network


async def add(network: Network, name: str) -> None:
    await network.add_node(
        name,
        'engine = "sim"\ndrain_seconds = 0\n[catalogue.m]\nsource = "simulated"\n[sim]\ntokens_per_second = 40\n',
    )


def a_chat(kind: str, **fields: Any) -> dict[str, Any]:
    usage = {"include_usage": True}
    return {"model": "m", "temperature": 0, "max_tokens": 30, "stream": True, "stream_options": usage} | (
        KINDS[kind] | fields
    )


async def ask(session: aiohttp.ClientSession, network: Network, body: dict[str, Any]) -> Assembled:
    async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
        return assembled(await answer.read())


async def serving_node(network: Network) -> NodeProcess:
    [attempt] = network.coordinator.driver.state.attempts.by_stream.values()
    return network.nodes[network.coordinator.driver.state.roster.nodes[attempt.node_id].owner]


async def strike(node: NodeProcess, fault: str) -> None:
    if fault == "engine killed":
        os.kill((await node.status())["engines"][0]["pids"][0], signal.SIGKILL)
    else:
        os.kill(node.pid, signal.SIGKILL if fault == "agent killed" else signal.SIGTERM)


async def mend(network: Network, node: NodeProcess, fault: str) -> None:
    if fault != "engine killed":
        await network.nodes.pop(node.name).process.wait()
        await add(network, node.name)
    await network.until_serving("m", 3)


@pytest.mark.parametrize("fault", ["agent killed", "engine killed", "agent stopped"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_whose_node_is_lost_goes_on_from_another_and_is_the_unbroken_one(
    network: Network, kind: str, fault: str
) -> None:
    async with network.session() as session:
        unbroken = await ask(session, network, a_chat(kind))
        async with session.post(f"{network.base_url}/chat/completions", json=a_chat(kind)) as answer:
            body = b""
            while body.count(b"data: ") < 8:
                body += await answer.content.readany()
            node = await serving_node(network)
            await strike(node, fault)
            body += await answer.read()
            request_id = answer.headers["x-request-id"]
        async with session.get(f"{network.base_url}/requests/{request_id}") as told:
            document = await told.json()
    await mend(network, node, fault)
    assert assembled(body) == unbroken
    assert (unbroken.done, unbroken.errors, unbroken.roles) == (True, [], 1)
    assert [attempt["resume"] for attempt in document["attempts"]] == [None, METHODS[kind]]
    assert (document["status"], document["continuations"]) == ("finished", 1)
    assert 0 < document["attempts"][1]["seam"] < document["tokens"]
    assert unbroken.usage is not None
    assert document["tokens"] == unbroken.usage["completion_tokens"]


async def test_an_answer_that_loses_two_nodes_in_turn_is_whole_all_the_same(network: Network) -> None:
    async with network.session() as session:
        unbroken = await ask(session, network, a_chat("text"))
        async with session.post(f"{network.base_url}/chat/completions", json=a_chat("text")) as answer:
            body, struck = b"", []
            for events in (6, 14):
                while body.count(b"data: ") < events:
                    body += await answer.content.readany()
                struck.append(await serving_node(network))
                await strike(struck[-1], "agent killed")
            body += await answer.read()
    for node in struck:
        await network.nodes.pop(node.name).process.wait()
        await add(network, node.name)
    await network.until_serving("m", 3)
    assert assembled(body) == unbroken


async def test_several_answers_to_one_request_are_told_apart_and_survive_a_lost_node(network: Network) -> None:
    async with network.session() as session:
        body = a_chat("text", n=3, temperature=1, seed=5)
        async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
            broken = b""
            while broken.count(b"data: ") < 12:
                broken += await answer.content.readany()
            attempts = list(network.coordinator.driver.state.attempts.by_stream.values())
            roster = network.coordinator.driver.state.roster
            node = network.nodes[roster.nodes[attempts[0].node_id].owner]
            await strike(node, "agent killed")
            broken += await answer.read()
        await mend(network, node, "agent killed")
        async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
            unbroken = await answer.read()
    assert by_choice(broken) == by_choice(unbroken)
    assert len(set(by_choice(broken).values())) == 3
    assert assembled(broken).usage == assembled(unbroken).usage
    assert assembled(broken).done


def by_choice(body: bytes) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events_of(body):
        for choice in event["choices"] if isinstance(event, dict) else ():
            texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return texts


async def test_explain_tells_a_caller_where_the_seam_is_and_another_key_nothing(network: Network) -> None:
    async with (
        network.session() as session,
        session.post(f"{network.base_url}/chat/completions", json=a_chat("text")) as answer,
    ):
        await answer.content.readuntil(b"\n\n")
        node = await serving_node(network)
        await strike(node, "agent killed")
        await answer.read()
        request_id = answer.headers["x-request-id"]
    await mend(network, node, "agent killed")
    said = await explain(network, request_id, network.api_key)
    assert "continued by token ids at token" in said
    assert "the node was lost" in said
    other, _ = await network.administration.create_key("other", Scope.CALLER, None)
    assert "Nothing is known of the request" in await explain(network, request_id, other.text)


async def explain(network: Network, request_id: str, key: str) -> str:
    environment = {**os.environ, "SHRK_API_KEY": key, "SHRK_BASE_URL": network.base_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from shrk_cli.main import main; main()",
        "explain",
        request_id,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return said.decode()
