"""The stub libnvidia-ml.so.1: compiled with this machine's compiler, told what to do, and used by a child process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.house import ROOT
from support.processes import SECONDS_MAX

STUB = ROOT / "tests" / "support" / "nvml_stub"
#: Of nvml.h.
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, UNKNOWN = 3, 4, 9, 15, 999
UNINITIALIZED, MISMATCH = 1, 18
#: What the two GPUs of the stub are called.
FIRST, SECOND = "GPU-a0000000-5eed-4000-8000-000000000000", "GPU-a0000001-5eed-4000-8000-000000000000"


def compiler() -> str | None:
    """This machine's C compiler, if it has one."""
    return shutil.which(os.environ.get("CC", "cc"))


def compile_stub(folder: Path, *options: str) -> Path:
    """The folder with the library in it, for LD_LIBRARY_PATH."""
    found = compiler()
    assert found, "whoever compiles the stub has looked for a compiler before"
    folder.mkdir(parents=True, exist_ok=True)
    command = [found, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *options]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([*command, "-o", str(library), str(STUB / "libnvidia-ml.c")], check=True, timeout=60)
    return folder


@dataclass
class StubDriver:
    """What the stub does from now on, for whoever has its `environment`."""

    folder: Path
    #: Read by the stub at each call.
    file: Path
    _lines: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to find the stub."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.folder), "NVML_STUB_FILE": str(self.file)}

    def says(self, **lines: object) -> None:
        """Lines as in `libnvidia-ml.c`, "__" for "."; None takes one away."""
        for key, value in lines.items():
            key = key.replace("__", ".")
            if value is None:
                self._lines.pop(key, None)
            else:
                self._lines[key] = str(value)
        self._write()

    def forgets(self) -> None:
        """All is well again."""
        self._lines.clear()
        self._write()

    def hangs_in(self, call: str) -> Path:
        """The call hangs until `held` of this FIFO ends."""
        fifo = self.file.with_name(f"{call}.fifo")
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        self._lines[f"hang.{call}"] = str(fifo)
        self._write()
        return fifo

    def _write(self) -> None:
        new = self.file.with_suffix(".new")
        new.write_text("".join(f"{key} {value}\n" for key, value in self._lines.items()))
        new.rename(self.file)


class NvmlChild:
    """A process that reads GPUs through the stub."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, do: str, **arguments: Any) -> Any:
        """See `nvml_child`."""
        assert self._process.stdin is not None
        number = len(self._answers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
        async with asyncio.timeout(SECONDS_MAX):
            return await self._answers[number]

    async def new(self, *visible: str, seconds: float = 60.0, kept: Path | None = None, killed: bool = False) -> None:
        """Forget all that was learnt; `seconds` is the time-out of a poll. `kept`: where settings are remembered.

        `killed`: what was there before had no time to take anything back.
        """
        await self.ask("new", visible=visible, seconds=seconds, kept=str(kept or ""), killed=killed)

    async def read(self) -> Any:
        """All readings, or why not."""
        return await self.ask("read")

    async def listen(self) -> None:
        """Until the process ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            self._answers[told["id"]].set_result(told["answer"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AssertionError("the child has ended; see its stderr"))


@asynccontextmanager
async def held(fifo: Path) -> AsyncIterator[None]:
    """Begins when a call hangs at `StubDriver.hangs_in`; the call goes on at the end."""
    opening = asyncio.create_task(asyncio.to_thread(os.open, fifo, os.O_WRONLY))
    try:
        descriptor = await asyncio.shield(opening)
    except asyncio.CancelledError:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # A call never came: the thread must not wait for one.
        raise
    try:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def nvml_child(stub: StubDriver) -> AsyncIterator[NvmlChild]:
    """A process; its end in good order is part of every test that uses it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.nvml_child"),
        cwd=ROOT / "tests",
        env=stub.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = NvmlChild(process)
    listening = asyncio.create_task(child.listen())
    try:
        yield child
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(SECONDS_MAX):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await listening
