"""A thread for calls that may hang: the loop goes on, one call at a time, late answers are dropped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from shrk_node_agent.sensors.gpu import SensorsFailed
from shrk_node_agent.sensors.own_thread import NoAnswer, OwnThread

#: Longer than any test lives.
FOR_EVER = 600.0


class Gate:
    """A call that tells when it is under way, and returns when it is let through."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.entered.set)
        self._open.wait()
        return "late"

    def open(self) -> None:
        self._open.set()


async def test_what_is_called_runs_elsewhere_and_its_result_comes_back() -> None:
    thread = OwnThread("test")
    assert await thread.call(threading.current_thread, FOR_EVER) is not threading.current_thread()
    assert (await thread.call(threading.current_thread, FOR_EVER)).daemon
    thread.end()


async def test_while_a_call_hangs_other_tasks_go_on() -> None:
    thread, gate = OwnThread("test"), Gate()
    calling = asyncio.create_task(thread.call(gate, FOR_EVER))
    await gate.entered.wait()
    others = asyncio.create_task(asyncio.sleep(0, "done"))
    assert await others == "done"
    assert not calling.done()
    gate.open()
    assert await calling == "late"
    thread.end()


async def test_a_call_that_is_too_slow_is_given_up_and_its_answer_dropped() -> None:
    thread, gate = OwnThread("test"), Gate()
    with pytest.raises(NoAnswer):
        await thread.call(gate, 0.01)
    gate.open()
    assert await thread.call(lambda: "prompt", FOR_EVER) == "prompt"
    thread.end()


async def test_no_call_begins_before_the_one_that_hangs_has_returned() -> None:
    thread, gate = OwnThread("test"), Gate()
    began: list[str] = []
    with pytest.raises(NoAnswer):
        await thread.call(gate, 0.01)
    for _ in range(3):
        with pytest.raises(NoAnswer):
            await thread.call(lambda: began.append("given up"), 0.01)
    waiting = asyncio.create_task(thread.call(lambda: began.append("waited"), FOR_EVER))
    await asyncio.sleep(0)
    assert began == []
    gate.open()
    await waiting
    assert began == ["waited"]
    thread.end()


async def test_calls_that_come_together_run_one_after_another() -> None:
    thread = OwnThread("test")
    running = most = 0

    def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1

    await asyncio.gather(*(thread.call(call, FOR_EVER) for _ in range(50)))
    assert most == 1
    thread.end()


async def test_a_driver_that_is_gone_is_told_and_the_thread_goes_on() -> None:
    thread = OwnThread("test")

    def gone() -> None:
        raise SensorsFailed("no driver")

    with pytest.raises(SensorsFailed, match="no driver"):
        await thread.call(gone, FOR_EVER)
    assert await thread.call(lambda: 1, FOR_EVER) == 1
    thread.end()


async def test_a_mistake_of_ours_fails_one_poll_and_not_the_thread() -> None:
    thread = OwnThread("test")
    with pytest.raises(SensorsFailed, match="ZeroDivisionError"):
        await thread.call(lambda: 1 // 0, FOR_EVER)
    assert await thread.call(lambda: 1, FOR_EVER) == 1
    thread.end()


async def test_a_caller_that_is_cancelled_leaves_the_thread_as_it_is() -> None:
    thread, gate = OwnThread("test"), Gate()
    calling = asyncio.create_task(thread.call(gate, FOR_EVER))
    await gate.entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    gate.open()
    assert await thread.call(lambda: 1, FOR_EVER) == 1
    thread.end()


_HANGS_AND_ENDS = """
import asyncio, threading
from shrk_node_agent.sensors.own_thread import NoAnswer, OwnThread

async def main():
    try:
        await OwnThread("test").call(threading.Event().wait, 0.01)
    except NoAnswer:
        print("given up")

asyncio.run(main())
"""


def test_a_call_that_never_returns_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGS_AND_ENDS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "given up\n", "")


_RETURNS_TO_A_CLOSED_LOOP = """
import asyncio, threading
from shrk_node_agent.sensors.own_thread import NoAnswer, OwnThread

go, thread = threading.Event(), OwnThread("test")

async def main():
    try:
        await thread.call(go.wait, 0.01)
    except NoAnswer:
        print("given up")

asyncio.run(main())
go.set()
thread._thread.join()
print("thread ended")
"""


def test_a_call_that_returns_after_the_loop_is_closed_ends_the_thread_without_a_word() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _RETURNS_TO_A_CLOSED_LOOP], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "given up\nthread ended\n", "")
