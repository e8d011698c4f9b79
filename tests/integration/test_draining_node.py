"""A node that stops in good order: what it says to its coordinator, and how long it waits for what follows."""

from __future__ import annotations

import asyncio

from shrk_contract.v1 import link_pb2, report_pb2
from support.network import until
from support.raw_coordinated_agent import CoordinatedAgent, coordinated_agent

PACE = {"tokens_per_second": 50}


async def draining(node: CoordinatedAgent) -> tuple[asyncio.Task[None], link_pb2.Drain]:
    """The agent begins to stop, and has said so."""
    stopping = asyncio.create_task(node.agent.drain())
    await until(lambda: bool(node.of("drain")), "the agent says that it stops")
    return stopping, node.of("drain")[0]


async def test_with_no_time_of_its_own_it_still_waits_to_hear_what_was_moved_elsewhere() -> None:
    async with coordinated_agent(sim=PACE, drain_seconds=0) as node:
        for stream in (1, 2):
            await node.ask(stream)
            await node.until_said("piece", stream)
        stopping, drain = await draining(node)
        assert drain.deadline_ms == 0
        await node.cancel(1)
        await until(lambda: len(node.agent.driver.state.attempts) == 1, "the first is given up")
        assert not stopping.done()
        await node.cancel(2)
        await stopping
        assert node.agent.driver.state.attempts == {}


async def test_an_answer_that_ends_meanwhile_is_sent_whole_before_the_agent_goes() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await node.ask(1, max_tokens=50)
        await node.until_said("piece", 1)
        stopping, drain = await draining(node)
        assert drain.deadline_ms == 110_000
        await stopping
        await node.agent.stop()
        await until(lambda: bool(node.of("finish", 1)), "the last word")
        assert node.of("finish", 1)[0].end_index == 50


async def test_a_node_with_nothing_to_do_goes_at_once_and_takes_nothing_more() -> None:
    async with coordinated_agent() as node:
        await node.agent.drain()
        await node.ask(1)
        rejected = await node.until_said("rejected", 1)
        assert rejected.reason == link_pb2.REJECTION_REASON_DRAINING
        await node.until_reported(lambda e: e.status.state == report_pb2.STATE_DRAINING, "it drains")


async def test_a_coordinator_that_moves_nothing_does_not_keep_an_agent_for_ever() -> None:
    async with coordinated_agent(sim=PACE, drain_seconds=0) as node:
        await node.ask(1)
        await node.until_said("piece", 1)
        await node.agent.drain()
        assert len(node.agent.driver.state.attempts) == 1
