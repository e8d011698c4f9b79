"""Seeing nodes: one name everywhere, what an admin is told of a real agent, and that its loss shows with its reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from typer.testing import CliRunner, Result

from shrk_coordinator.cli import app
from support.network import Network, a_network, until


async def fetched(network: Network, path: str, key: str) -> Any:
    async with network.session(key) as session, session.get(f"{network.base_url}{path}") as answer:
        assert answer.status == 200
        return await answer.json()


def run(network: Network, *words: str) -> Result:
    environment = {"SHRK_API_KEY": network.admin_key, "SHRK_BASE_URL": network.base_url}
    return CliRunner().invoke(app, ["nodes", *words], env=environment)


async def test_a_node_has_one_name_wherever_it_is_seen_and_its_loss_is_told_with_its_reason() -> None:
    async with a_network() as network:
        await network.add_simulated("attic")
        await network.until_serving("m", 1)
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
        async with (
            network.session() as session,
            session.post(f"{network.base_url}/chat/completions", json=body) as answer,
        ):
            assert answer.status == 200
            request, name = answer.headers["x-request-id"], answer.headers["x-shiver-node"]
            await answer.read()
        attempts = (await fetched(network, f"/requests/{request}", network.api_key))["attempts"]
        [seen_by_caller] = (await fetched(network, "/nodes", network.api_key))["data"]
        node = await fetched(network, f"/nodes/{name}", network.admin_key)
        assert attempts[0]["node"] == seen_by_caller["id"] == node["id"] == name
        assert set(seen_by_caller) == {"id", "object", "state", "since", "models"}

        assert (node["name"], node["owner"], node["state"]) == ("attic", "attic", "online")
        assert (node["address"], node["agent_version"] != "") == ("127.0.0.1", True)
        assert [check["check"] for check in node["checks"] if not check["passed"]] == []
        [engine] = node["engines"]
        assert (engine["model"], engine["why_not"], engine["breaker"]["state"]) == ("m", None, "closed")
        assert engine["speed"]["first_token_seconds"] is not None

        network.nodes["attic"].process.kill()
        roster = network.coordinator.driver.state.roster
        await until(lambda: roster.count("m") == 0, "the node is gone")
        shown = (await asyncio.to_thread(run, network)).stdout
        assert "1 node: 1 offline" in shown
        assert f"{name} (attic): its link was lost" in shown
        listed = json.loads((await asyncio.to_thread(run, network, "--state", "offline", "--json")).stdout)
        assert [node["id"] for node in listed["nodes"]] == [name]
        async with (
            network.session(network.admin_key) as session,
            session.get(f"{network.root_url}/metrics") as answer,
        ):
            metrics = await answer.text()
        assert 'shrk_nodes{state="offline"} 1.0' in metrics
        assert 'shrk_offers{model="m"} 0.0' in metrics
