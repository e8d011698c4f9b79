"""An engine that is lost, by its death or by its silence: what its coordinator hears, and in which order."""

from __future__ import annotations

import os
import signal
from typing import Any

import aiohttp

from shrk_contract.v1 import link_pb2
from support.network import until
from support.raw_coordinated_agent import CoordinatedAgent, coordinated_agent, is_online

#: Long enough to act before the first token, and an answer that no test waits out.
PACE = {"first_token_ms": 400, "tokens_per_second": 50}
STREAMED, WHOLE, WAITING, QUERY = 1, 2, 3, 5


async def three_attempts(node: CoordinatedAgent) -> None:
    """One in the middle of its stream, one that answers whole, one that waits for its first token."""
    await node.ask(STREAMED)
    await node.until_said("piece", STREAMED)
    await node.ask(WHOLE, streaming=False)
    await node.ask(WAITING)
    for stream in (WHOLE, WAITING):
        await node.until_said("accepted", stream)


async def serves_again(node: CoordinatedAgent) -> None:
    """The engine's next life is told, and answers."""
    await node.until_reported(lambda engine: is_online(engine) and engine.life == 2, "the engine's next life")
    await node.ask(4, ignore_eos=False, max_tokens=3)
    assert (await node.until_said("finish", 4)).end_index > 0


def kinds(frames: list[link_pb2.NodeFrame]) -> list[str]:
    """What was said of an engine's end, in order: which streams failed, and what was reported."""
    told = []
    for frame in frames:
        match frame.WhichOneof("frame"):
            case "failure":
                told.append(f"{frame.failure.code} {frame.failure.stream}")
            case "report":
                told.append("online" if is_online(frame.report.engines[0]) else "gone")
    return told


async def test_an_engine_that_is_killed_fails_every_attempt_first_and_is_reported_gone_next() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await three_attempts(node)
        before = len(node.said)
        os.kill(node.engine_pid(), signal.SIGKILL)
        await until(lambda: "gone" in kinds(node.said[before:]), "an engine that is gone")
        told = kinds(node.said[before:])
        failures, report = sorted(told[:3]), told[3]
        assert failures == ["engine_lost 1", "engine_lost 2", "engine_lost 3"]
        assert report == "gone"
        assert all(frame.failure.fault == link_pb2.FAULT_ENGINE for frame in node.said if frame.HasField("failure"))
        assert node.agent.driver.state.engines["m"].in_flight == 0
        await serves_again(node)


async def arm(node: CoordinatedAgent, **fault: Any) -> None:
    """Let the engine go wrong."""
    connector = aiohttp.UnixConnector(str(node.agent.driver.processes["m"].socket))
    async with (
        aiohttp.ClientSession("http://engine", connector=connector) as engine,
        engine.post("/simulated/faults", json=fault) as answer,
    ):
        assert answer.status == 200


async def test_an_engine_that_crashes_of_a_prompt_is_told_so_to_all_that_had_no_token_yet() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await arm(node, kind="query-of-death", text="a prompt to die of")
        await three_attempts(node)
        before = len(node.said)
        await node.ask(QUERY, messages=[{"role": "user", "content": "This is a prompt to die of."}])
        await until(lambda: "gone" in kinds(node.said[before:]), "an engine that is gone")
        told = kinds(node.said[before:])
        failures, report = sorted(told[:4]), told[4]
        # The first had a token: whatever the engine died of, it was not of reading that one.
        assert failures == ["engine_crashed 2", "engine_crashed 3", "engine_crashed 5", "engine_lost 1"]
        assert report == "gone"
        assert node.of("failure", QUERY)[0].message == "the engine crashed (SIGSEGV)"
        await serves_again(node)


async def test_an_error_of_an_engine_that_lives_on_is_told_as_it_is() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await arm(node, kind="error", times=1)
        await node.ask(1)
        failure = await node.until_said("failure", 1)
        assert (failure.code, failure.http_status, failure.fault) == ("", 500, link_pb2.FAULT_ENGINE)
        await node.ask(4, ignore_eos=False, max_tokens=3)
        assert (await node.until_said("finish", 4)).end_index > 0


async def test_an_engine_that_freezes_fails_its_attempts_is_ended_and_serves_again() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await three_attempts(node)
        pid = node.engine_pid()
        before = len(node.said)
        os.kill(pid, signal.SIGSTOP)
        for stream in (STREAMED, WHOLE, WAITING):
            assert (await node.until_said("failure", stream)).code == "engine_hung"
        # Told to be gone before it is: nothing new may be placed there while it is being ended.
        await until(lambda: "gone" in kinds(node.said[before:]), "an engine that takes nothing")
        await node.ask(9)
        assert (await node.until_said("rejected", 9)).reason == link_pb2.REJECTION_REASON_TERMS
        await until(lambda: node.agent.driver.state.engines["m"].start_at is not None, "the frozen process has ended")
        assert not _lives(pid)
        await serves_again(node)
        assert node.agent.driver.state.engines["m"].failures == 1


async def test_a_frozen_engine_that_goes_on_in_time_keeps_its_attempts() -> None:
    async with coordinated_agent(sim=PACE) as node:
        await node.ask(STREAMED)
        await node.until_said("piece", STREAMED)
        os.kill(node.engine_pid(), signal.SIGSTOP)
        liveness = node.agent.driver.state.engines["m"].liveness
        assert liveness is not None
        await until(lambda: liveness.phase.value == "asked", "the engine is in doubt")
        os.kill(node.engine_pid(), signal.SIGCONT)
        before = len(node.of("piece", STREAMED))
        await until(lambda: len(node.of("piece", STREAMED)) > before, "tokens go on")
        await until(lambda: liveness.phase.value == "moving", "the doubt is over")
        assert node.of("failure") == []
        assert node.of("report")[-1].engines[0].life == 1


async def test_an_engine_at_work_on_a_whole_answer_is_not_even_asked_for_a_token() -> None:
    # It says nothing until the end: its own figures speak for it.
    async with coordinated_agent(sim={"tokens_per_second": 20}) as node:
        await node.ask(1, streaming=False, max_tokens=120)
        liveness = node.agent.driver.state.engines["m"].liveness
        assert liveness is not None
        phases = set()

        def answered() -> bool:
            phases.add(liveness.phase.value)
            return bool(node.of("finish", 1))

        await until(answered, "the whole answer")
        assert phases == {"moving", "looking"}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
