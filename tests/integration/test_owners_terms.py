"""Heat and pauses on a real agent: the stream moves, and both sides say why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from support.network import Network, NodeProcess, a_network, events_of, until

SIMULATED = 'engine = "sim"\n[catalogue.m]\nsource = "simulated"\nslots = 8\n[sim]\ntokens_per_second = 20\n'


class Card:
    """A scripted GPU whose temperature a test sets."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_at(self, celsius: float) -> None:
        """From the next reading on."""
        new = self.path.with_suffix(".new")
        gpu = {"name": "Scripted", "memory_gb": 24, "temperatures": [[0, celsius]], "power_limit": "unsupported"}
        new.write_text(json.dumps({"gpu": [gpu]}))
        new.rename(self.path)


async def with_a_card(network: Network, name: str) -> tuple[NodeProcess, Card]:
    card = Card(network.folder / f"{name}.json")
    card.is_at(45.0)
    scripted = f'gpu = "scripted"\nscripted_gpu = "{card.path}"\ntemp_max = 70\n'
    return await network.add_node(name, scripted + SIMULATED), card


async def state_of(node: NodeProcess, wanted: str) -> dict[str, Any]:
    """Its status, once it is in this state."""
    async with asyncio.timeout(30):
        while (status := await node.status())["state"] != wanted:
            await node.news(status["revision"])
    return status


async def asked(network: Network, path: str) -> Any:
    async with network.session(network.admin_key) as session, session.get(f"{network.base_url}{path}") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_a_card_that_gets_hot_in_the_middle_of_an_answer_hands_it_over_and_says_why() -> None:
    async with a_network() as network:
        machines = {name: await with_a_card(network, name) for name in ("one", "two")}
        await network.until_serving("m", 2)
        for node, _ in machines.values():
            await state_of(node, "online")
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 160, "stream": True}
        async with (
            network.session() as session,
            session.post(f"{network.base_url}/chat/completions", json=body) as answer,
        ):
            assert answer.status == 200
            first = await answer.content.readany()
            serving = await asked(network, f"/nodes/{answer.headers['x-shiver-node']}")
            hot, card = machines.pop(serving["name"])
            card.is_at(76.0)
            status = await state_of(hot, "cooling")
            rest = await answer.read()
            request = answer.headers["x-request-id"]
        assert events_of(first + rest)[-1] == "[DONE]"
        assert "°C of 70 °C" in status["reason"]
        [gpu] = status["gpus"]
        assert (gpu["temperature_celsius"], gpu["cap_celsius"]) == (76.0, 70.0)
        attempts = (await asked(network, f"/requests/{request}"))["attempts"]
        assert len(attempts) == 2
        assert attempts[0]["node"] == serving["id"] != attempts[1]["node"]
        nodes = {node["name"]: node for node in (await asked(network, "/nodes"))["data"]}
        [cool] = machines
        assert (nodes[serving["name"]]["state"], nodes[cool]["state"]) == ("cooling", "online")
        assert "°C of 70 °C" in nodes[serving["name"]]["reason"]


async def test_a_paused_node_takes_no_work_until_it_is_resumed_whatever_becomes_of_its_agent() -> None:
    async with a_network() as network:
        node, _ = await with_a_card(network, "only")
        await network.until_serving("m", 1)
        roster = network.coordinator.driver.state.roster
        await node.post("/pause", {"seconds": 3_600})
        await state_of(node, "paused")
        await until(lambda: any(known.kept_back for known in roster.nodes.values()), "the coordinator knows")
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        async with (
            network.session() as session,
            session.post(f"{network.base_url}/chat/completions", json=body) as refused,
        ):
            assert refused.status == 503
            assert "owner" in (await refused.json())["error"]["message"]
        node.process.kill()
        await node.process.wait()
        await until(lambda: all(known.link is None for known in roster.nodes.values()), "the coordinator lost it")
        node, _ = await with_a_card(network, "only")
        await until(lambda: any(known.link and known.kept_back for known in roster.nodes.values()), "it is back")
        await state_of(node, "paused")
        assert (await node.status())["engines"][0]["state"] == "paused", "a pause outlives the agent"
        await node.post("/resume", {})
        await state_of(node, "online")
        await until(lambda: not any(known.kept_back for known in roster.nodes.values()), "the coordinator knows")
        async with (
            network.session() as session,
            session.post(f"{network.base_url}/chat/completions", json=body) as answer,
        ):
            assert answer.status == 200
