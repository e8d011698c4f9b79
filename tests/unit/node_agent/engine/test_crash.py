"""Whether an engine crashed under an attempt: which ends are crashes, and which failures wait to hear of one."""

from __future__ import annotations

import asyncio
import signal

import pytest

from shrk_contract.terms import Fault
from shrk_node_agent.attempts import Failed
from shrk_node_agent.engine.crash import CRASH_SECONDS_MAX, ENGINE_CRASHED, ENGINE_LOST, crash_of, explained

LOST = Failed(Fault.ENGINE, "the engine broke off", code=ENGINE_LOST)
ERROR = Failed(Fault.ENGINE, "boom", 500)


@pytest.mark.parametrize(
    ("returncode", "crash"),
    [
        (-signal.SIGSEGV, "SIGSEGV"),
        (-signal.SIGABRT, "SIGABRT"),
        (1, "exit status 1"),
        (-signal.SIGKILL, ""),
        (-signal.SIGTERM, ""),
        (0, ""),
    ],
)
def test_an_end_that_nobody_else_caused_is_a_crash(returncode: int, crash: str) -> None:
    assert crash_of(returncode) == crash


@pytest.mark.parametrize("failed", [LOST, ERROR])
async def test_a_failure_under_which_the_engine_crashed_tells_how(failed: Failed) -> None:
    async def crash() -> str:
        return "SIGSEGV"

    assert await explained(failed, crash) == Failed(Fault.ENGINE, "the engine crashed (SIGSEGV)", code=ENGINE_CRASHED)


@pytest.mark.parametrize("failed", [LOST, ERROR])
async def test_a_failure_stays_what_it_was_where_the_engine_did_not_crash(failed: Failed) -> None:
    async def no_crash() -> str:
        return ""

    assert await explained(failed, no_crash) is failed


async def test_an_engine_that_lives_on_is_not_waited_for_for_ever() -> None:
    ended = asyncio.Event()

    async def never() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    assert await explained(LOST, never) is LOST
    assert ended.is_set()
    assert CRASH_SECONDS_MAX <= 0.25, "a caller waits as long"


@pytest.mark.parametrize(
    "failed",
    [
        Failed(Fault.CALLER, "wrong", 400),
        Failed(Fault.ENGINE, "a queue", 429),
        Failed(Fault.ENGINE, "the engine sent 5", code="engine_nonsense"),
        Failed(Fault.COORDINATOR, "the time is over", code="deadline"),
        Failed(Fault.ENGINE, "EngineCore encountered an issue.", 500, code=ENGINE_CRASHED),
    ],
)
async def test_what_no_crash_explains_is_told_at_once(failed: Failed) -> None:
    async def nobody_asks() -> str:
        raise AssertionError

    assert await explained(failed, nobody_asks) is failed
