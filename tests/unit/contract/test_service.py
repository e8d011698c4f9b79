"""The life of a service between two signals, what becomes of its background tasks, and what its logs show."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from shrk_contract.service import BackgroundFailed, run_until_signalled, running

#: No test needs it: it only ends one that hangs, with a word where it does.
SECONDS_MAX = 30.0

#: A process whose only background task fails at once.
_FAILING = """
import asyncio
from contextlib import AsyncExitStack
from shrk_contract.service import configure_logs, run_until_signalled, running
async def failing():
    raise RuntimeError("no such disk")
class Failing:
    stack = AsyncExitStack()
    async def start(self):
        self.stack.callback(print, "all closed")
        await self.stack.enter_async_context(running(failing(), "watch"))
    async def drain(self): ...
    async def stop(self):
        await self.stack.aclose()
configure_logs("json")
asyncio.run(run_until_signalled(Failing()))
"""

#: A process that logs an error with a secret in a local variable, made so that no line of the program holds it.
_SPILLING = """
import sys
import structlog
from shrk_contract.service import configure_logs
configure_logs(sys.argv[1])
def authenticate():
    key = "-".join(["shrk", "secret"])
    raise ValueError("no such key")
try:
    authenticate()
except ValueError:
    structlog.get_logger().exception("failed")
"""


async def nothing() -> None:
    """A step that takes no time."""


def signalled() -> None:
    """What a service manager sends."""
    os.kill(os.getpid(), signal.SIGTERM)


class Recorded:
    """A service that writes down its steps; `start` and `drain` can be given something to do."""

    def __init__(
        self, starting: Callable[[], Awaitable[None]] = nothing, draining: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        self.steps: list[str] = []
        self.started = asyncio.Event()
        self.drains = asyncio.Event()
        self.stack = AsyncExitStack()
        self.starting = starting
        self.draining = draining

    async def start(self) -> None:
        """Tell when it is done."""
        self.steps.append("start")
        await self.starting()
        self.steps.append("started")
        self.started.set()

    async def drain(self) -> None:
        """Tell when it begins."""
        self.steps.append("drain")
        self.drains.set()
        await self.draining()
        self.steps.append("drained")

    async def stop(self) -> None:
        """Close what `stack` holds."""
        self.steps.append("stop")
        await self.stack.aclose()


async def lived(service: Recorded) -> None:
    """Its whole life."""
    async with asyncio.timeout(SECONDS_MAX):
        await run_until_signalled(service)


async def for_ever() -> None:
    """Until it is given up."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_and_then_stops(number: signal.Signals) -> None:
    service = Recorded()
    living = asyncio.create_task(lived(service))
    await service.started.wait()
    os.kill(os.getpid(), number)
    await living
    assert service.steps == ["start", "started", "drain", "drained", "stop"]


async def test_a_second_signal_ends_the_drain() -> None:
    service = Recorded(draining=for_ever)
    living = asyncio.create_task(lived(service))
    await service.started.wait()
    signalled()
    await service.drains.wait()
    signalled()
    await living
    assert service.steps == ["start", "started", "drain", "stop"]


async def test_a_signal_during_the_start_gives_it_up_and_stops() -> None:
    async def interrupted() -> None:
        signalled()
        await for_ever()

    service = Recorded(starting=interrupted)
    await lived(service)
    assert service.steps == ["start", "stop"]


@pytest.mark.parametrize("turns", range(6))
async def test_a_signal_as_the_start_ends_is_not_lost(turns: int) -> None:
    async def interrupted() -> None:
        signalled()
        for _ in range(turns):  # In one of these turns of the loop the signal is noticed.
            await asyncio.sleep(0)

    service = Recorded(starting=interrupted)
    await lived(service)
    assert service.steps in (["start", "stop"], ["start", "started", "drain", "drained", "stop"])


async def test_a_start_that_fails_is_stopped_and_told() -> None:
    async def failing() -> None:
        raise OSError("the port is taken")

    service = Recorded(starting=failing)
    with pytest.raises(OSError, match="the port is taken"):
        await lived(service)
    assert service.steps == ["start", "stop"]


async def fails_when(told: asyncio.Event) -> None:
    """A background task with a bug."""
    await told.wait()
    raise ValueError("a bug")


async def test_a_background_task_that_fails_drains_stops_and_is_told_at_the_end() -> None:
    service, told = Recorded(), asyncio.Event()
    closed: list[str] = []

    async def starting() -> None:
        service.stack.callback(closed.append, "opened first")
        await service.stack.enter_async_context(running(fails_when(told), "watch"))
        service.stack.callback(closed.append, "opened last")

    service.starting = starting
    living = asyncio.create_task(lived(service))
    await service.started.wait()
    told.set()
    with pytest.raises(BackgroundFailed, match="'watch' failed: ValueError") as failed:
        await living
    assert isinstance(failed.value.__cause__, ValueError)
    assert service.steps == ["start", "started", "drain", "drained", "stop"]
    assert closed == ["opened last", "opened first"]


async def test_a_background_task_that_fails_during_the_start_is_told_though_the_start_closed_it() -> None:
    told = asyncio.Event()
    told.set()

    async def starting() -> None:
        async with running(fails_when(told), "watch"):
            await for_ever()

    service = Recorded(starting=starting)
    with pytest.raises(BackgroundFailed):
        await lived(service)
    assert service.steps == ["start", "stop"]


async def test_a_background_task_that_runs_to_the_end_is_no_failure() -> None:
    async with running(for_ever(), "watch"):
        await asyncio.sleep(0)


def test_a_process_whose_background_task_failed_ends_with_status_1() -> None:
    ended = subprocess.run([sys.executable, "-c", _FAILING], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == "all closed\n"
    assert "BackgroundFailed: the background task 'watch' failed: RuntimeError('no such disk')" in ended.stderr


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_log_shows_what_local_variables_hold(style: str) -> None:
    spilt = subprocess.run([sys.executable, "-c", _SPILLING, style], capture_output=True, text=True, timeout=60)
    assert spilt.returncode == 0, spilt.stderr
    assert "no such key" in spilt.stderr
    assert "in authenticate" in spilt.stderr
    assert "shrk-secret" not in spilt.stderr + spilt.stdout
