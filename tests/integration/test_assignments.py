"""Which node loads which model, with real agents: every model is served though no node has room for all."""

from __future__ import annotations

import aiohttp

from support.network import Network, a_network, events_of, text_of, until

#: Room for one of the two models.
ROOM_FOR_ONE = """
engine = "sim"
memory_gb = 10
[catalogue.common]
source = "simulated"
memory_gb = 8
[catalogue.rare]
source = "simulated"
memory_gb = 8
[sim]
tokens_per_second = 30
"""


async def stream(network: Network, session: aiohttp.ClientSession, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 8}
    url = f"{network.base_url}/chat/completions"
    async with session.post(url, json=body) as answer:
        assert answer.status == 200
        return text_of(events_of(await answer.read()))


async def test_a_model_that_nobody_has_loaded_gets_a_place_and_another_when_its_node_is_lost() -> None:
    async with a_network() as network, network.session() as session:
        for number in range(3):
            await network.add_node(f"n{number}", ROOM_FOR_ONE)
        # Each begins with what fits, in its owner's order; then the coordinator makes room for the other.
        await network.until_serving("rare", 1)
        await network.until_serving("common", 2)
        state = network.coordinator.driver.state
        for model in ("rare", "common"):
            assert await stream(network, session, model)
            redundancy = state.assigning.redundancy(model)
            assert redundancy is not None
            assert redundancy.degraded
        nodes = state.roster.nodes.values()
        await until(lambda: all(node.assigned_revision for node in nodes), "every node has answered its assignment")

        [(lost, _)] = state.roster.offers("rare")
        network.nodes[lost.owner].process.kill()
        await network.nodes.pop(lost.owner).process.wait()
        await until(
            lambda: network.serving("rare") == network.serving("common") == 1, "both are served by the two left"
        )
