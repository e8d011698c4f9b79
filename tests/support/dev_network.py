"""Runs the command `shrk dev` as a user does, and knows every process and file that it made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

#: `shrk dev` promises that nothing is left this long after its death.
GONE_SECONDS_MAX = 5.0
SHRK = Path(sys.prefix) / "bin" / "shrk"


class DevNetwork:
    """One running `shrk dev`."""

    def __init__(self, process: asyncio.subprocess.Process, temporary: Path) -> None:
        self.process = process
        #: TMPDIR of the command: whatever is in it at the end was left behind.
        self.temporary = temporary
        self.said: list[str] = []
        self.ready: dict[str, Any] = {}
        self._heard = asyncio.Condition()
        self._known: dict[int, psutil.Process] = {}
        self._listening = asyncio.create_task(self._listen())

    async def until_ready(self) -> None:
        """Wait for the line on standard output; fails with what was said when the command ends first."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self._listening
            raise AssertionError("shrk dev ended before it was ready:\n" + "\n".join(self.said))
        self.ready = json.loads(line)
        self.note_processes()

    async def says(self, *parts: str, after: int = 0) -> str:
        """Wait for a line on standard error, from number `after` on, that holds all parts."""

        def found() -> str | None:
            return next((line for line in self.said[after:] if all(part in line for part in parts)), None)

        async with self._heard:
            await self._heard.wait_for(lambda: found() or self._listening.done())
        line = found()
        assert line, f"{parts} was not said:\n" + "\n".join(self.said)
        return line

    def note_processes(self) -> None:
        """Remember every process below the command, so that its end can be checked."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._known.setdefault(process.pid, process)

    def node(self, name: str) -> dict[str, Any]:
        """A node as the ready line told it."""
        found: dict[str, Any] = next(node for node in self.ready["nodes"] if node["name"] == name)
        return found

    async def assert_nothing_is_left(self) -> None:
        """Every process and temporary file goes within the promised time."""
        await until(lambda: not self._living(), GONE_SECONDS_MAX, lambda: f"still there: {self._living()}")
        left = [str(path) for path in self.temporary.iterdir()]
        assert left == []

    def _living(self) -> list[str]:
        # is_running() compares start times, so a recycled process id is not taken for ours.
        living = []
        for process in self._known.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    living.append(f"{process.pid} {process.name()}")
        return living

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._heard:
                self.said.append(line.decode().rstrip())
                self._heard.notify_all()
        async with self._heard:
            self._heard.notify_all()

    async def close(self) -> None:
        """End it if a test has not."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()
        await self._listening


@contextlib.asynccontextmanager
async def dev_network(*options: str, engine: str = "sim", **environment: str) -> AsyncIterator[DevNetwork]:
    """`shrk dev --json` with these options on a free port; not waited for."""
    temporary = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))  # short: sockets live below it
    process = await asyncio.create_subprocess_exec(
        *(str(SHRK), "dev", "--json", "--engine", engine, "--port", "0", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)} | environment,
    )
    network = DevNetwork(process, temporary)
    try:
        yield network
    finally:
        await network.close()
        shutil.rmtree(temporary)


async def until(condition: Callable[[], bool], seconds_max: float, why: Callable[[], str]) -> None:
    """Wait for something that tells nobody when it happens, such as the death of someone else's child."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, why()
        await asyncio.sleep(0.02)
