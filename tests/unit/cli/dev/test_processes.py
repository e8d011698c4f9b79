"""Children under wardens: started, told apart, stopped, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shrk_cli.dev.processes import Child, Command, how_it_ended, python, run_to_end, spawn
from shrk_cli.dev.service import Service
from shrk_cli.errors import Trouble

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def lifeline() -> Iterator[int]:
    read, write = os.pipe()
    yield write
    os.close(read)
    os.close(write)


def program(text: str, folder: Path, *, log: Path | None = None, grace: float = 10.0) -> Command:
    return Command("it", python("-c", text), dict(os.environ), folder, log=log, grace_seconds=grace)


async def up(child: Child) -> None:
    """Until the program says so: then its signal handlers are in place."""
    assert await anext(child.lines()) == "up"


async def test_a_childs_own_process_id_is_known_and_its_status_comes_through(tmp_path: Path, lifeline: int) -> None:
    child = await spawn(program("import os, sys; print(os.getpid()); sys.exit(7)", tmp_path), lifeline)
    assert int(await anext(child.lines())) == child.pid
    assert await child.wait() == 7


async def test_a_killed_child_ends_with_the_negative_signal(tmp_path: Path, lifeline: int) -> None:
    child = await spawn(program(SLEEPER, tmp_path), lifeline)
    os.kill(child.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL


async def test_a_stopped_child_is_gone(tmp_path: Path, lifeline: int) -> None:
    child = await spawn(program(SLEEPER, tmp_path), lifeline)
    await up(child)
    await child.stop()
    assert not psutil.pid_exists(child.pid)
    assert await child.wait() == -signal.SIGTERM


async def test_a_child_that_ignores_the_request_to_stop_is_killed_at_once_when_asked(
    tmp_path: Path, lifeline: int
) -> None:
    child = await spawn(program(STUBBORN, tmp_path, grace=600), lifeline)
    await up(child)
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    await child.kill()
    await stopping
    assert not psutil.pid_exists(child.pid)


async def test_output_goes_to_the_log_when_there_is_one(tmp_path: Path, lifeline: int) -> None:
    log = tmp_path / "it.log"
    child = await spawn(program("import sys; print('out'); print('err', file=sys.stderr)", tmp_path, log=log), lifeline)
    assert await child.wait() == 0
    assert sorted(log.read_text().split()) == ["err", "out"]


async def test_a_short_command_gives_its_output_and_each_line_as_it_comes(tmp_path: Path, lifeline: int) -> None:
    lines: list[str] = []
    assert await run_to_end(program("print('a'); print('b')", tmp_path), lifeline, 60, lines.append) == "a\nb"
    assert lines == ["a", "b"]


async def test_a_short_command_that_fails_or_hangs_is_trouble(tmp_path: Path, lifeline: int) -> None:
    with pytest.raises(Trouble, match="ended with status 3"):
        await run_to_end(program("raise SystemExit(3)", tmp_path), lifeline, 60)
    with pytest.raises(Trouble, match="longer than"):
        await run_to_end(program(SLEEPER, tmp_path), lifeline, 0.01)


async def test_a_program_that_does_not_exist_ends_with_a_shells_status(tmp_path: Path, lifeline: int) -> None:
    command = Command("it", ("/does/not/exist",), dict(os.environ), tmp_path, log=tmp_path / "it.log")
    child = await spawn(command, lifeline)
    assert await child.wait() == 127
    assert "/does/not/exist" in (tmp_path / "it.log").read_text()


def test_how_a_process_ended_reads_as_a_sentence() -> None:
    assert how_it_ended(0) == "ended with status 0"
    assert how_it_ended(-9) == "was ended by SIGKILL"
    assert how_it_ended(-64 - 1) == "was ended by signal 65"


class Watched:
    """A service whose sayings and starts can be waited for."""

    def __init__(self, command: Command, lifeline: int, *, restart: bool) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.born: asyncio.Queue[Child] = asyncio.Queue()
        self.judged: list[int] = []
        self._command, self._lifeline = command, lifeline
        self.service = Service("it", self._start, self.said.put_nowait, self._judge, restart=restart)
        self.running = asyncio.create_task(self.service.run())

    async def _start(self) -> Child:
        child = await spawn(self._command, self._lifeline)
        self.born.put_nowait(child)
        return child

    def _judge(self, _child: Child, status: int) -> None:
        self.judged.append(status)
        if status == 5:
            raise Trouble("hopeless")


async def test_a_killed_service_is_started_again_and_says_so(tmp_path: Path, lifeline: int) -> None:
    watched = Watched(program(SLEEPER, tmp_path), lifeline, restart=True)
    first = await watched.born.get()
    os.kill(first.pid, signal.SIGKILL)
    assert await watched.said.get() == "it was ended by SIGKILL; starting it again in 1 s"
    second = await watched.born.get()
    assert second.pid != first.pid
    await watched.service.stop()
    await watched.running
    assert watched.judged == [-signal.SIGKILL]
    assert watched.service.ended.is_set()


async def test_without_restart_a_killed_service_stays_down_and_says_so(tmp_path: Path, lifeline: int) -> None:
    watched = Watched(program(SLEEPER, tmp_path), lifeline, restart=False)
    os.kill((await watched.born.get()).pid, signal.SIGKILL)
    assert await watched.said.get() == "it was ended by SIGKILL; it stays down (--no-restart)"
    await watched.running
    assert watched.service.pid is None


async def test_a_service_that_is_judged_hopeless_is_not_started_again(tmp_path: Path, lifeline: int) -> None:
    watched = Watched(program("raise SystemExit(5)", tmp_path), lifeline, restart=True)
    with pytest.raises(Trouble, match="hopeless"):
        await watched.running
    assert watched.service.ended.is_set()


async def test_a_service_stopped_during_its_pause_does_not_come_back(tmp_path: Path, lifeline: int) -> None:
    watched = Watched(program("pass", tmp_path), lifeline, restart=True)
    await watched.said.get()
    await watched.service.stop()
    await watched.running
    assert watched.born.qsize() == 1
