"""The bench's mock nodes, all in this one process: two cores cannot hold 32 agents beside what is measured.

It reads one JSON line from stdin (`Wish`), prints "linked" when every node is, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from bench.engine import MODELS
from bench.mock_node import MockNode, Wish, enrol_all
from shrk_contract.service import configure_logs, running

#: 32 enrolments take about 2 s on an idle machine.
LINKED_SECONDS_MAX = 60.0
#: Slots per node and model: one node alone takes every load of the bench, with room to spare, so that nothing waits.
SLOTS = 512


async def serve(wish: Wish) -> None:
    """Enrol and link all nodes, say so, and hold the links until stdin ends."""
    count = len(wish.join_tokens)
    # Steps are spread over the token's time: nodes of different owners keep no common beat.
    nodes = [
        MockNode(Path(wish.directory), f"bench-{number}", MODELS, SLOTS, phase=number / count)
        for number in range(count)
    ]
    async with asyncio.timeout(LINKED_SECONDS_MAX):
        await enrol_all(nodes, wish)
    links = [asyncio.create_task(_generate(node)) for node in nodes]
    try:
        async with asyncio.timeout(LINKED_SECONDS_MAX):
            await asyncio.gather(*(node.linked.wait() for node in nodes))
        print("linked", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)


async def _generate(node: MockNode) -> None:
    """Hold the link and generate until cancelled."""
    async with running(node.engine.run(), f"{node.name}-engine"):
        await node.run()


if __name__ == "__main__":
    configure_logs("json")
    uvloop.run(serve(Wish(**json.loads(sys.stdin.readline()))))
