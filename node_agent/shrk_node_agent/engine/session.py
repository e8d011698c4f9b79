"""One warden and the process it guards, as seen from the agent's event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shrk_node_agent.engine import warden

#: A warden starts in 50 ms; a machine that swaps may need seconds, and none needs this long.
BIRTH_SECONDS_MAX = 30.0
#: A warden without a parent ends by itself; beyond its grace, its killing and some seconds, it hangs.
ABANDON_SECONDS_MAX = warden.ORPHAN_GRACE_SECONDS + warden.WIPE_SECONDS_MAX + 5.0
#: The lines that a warden announces are far shorter.
ANNOUNCEMENT_BYTES_MAX = 4096
#: Output that waits to be read, before the engine has to wait with writing.
OUTPUT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Birth:
    """The guarded process, as its warden announced it."""

    pid: int
    start: int
    session: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class End:
    """What the warden found at the end."""

    #: Negative: the signal that ended it. None where even SIGKILL did not.
    returncode: int | None
    #: How many of its descendants had to be killed.
    killed: int
    #: Processes that survived SIGKILL: held inside a driver.
    left: tuple[int, ...]


class _Pipe:
    """A pipe's reading end on the event loop."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self.reader = reader
        self._transport = transport

    @classmethod
    async def connect(cls, fd: int, limit: int) -> _Pipe:
        """Takes the file descriptor over."""
        reader = asyncio.StreamReader(limit=limit)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        return cls(reader, transport)

    def close(self) -> None:
        self._transport.close()


class WardedSession:
    """A running warden. Made by `spawn`; `ended` must be awaited, then `close` called; or `abandon`."""

    def __init__(
        self, process: asyncio.subprocess.Process, control_fd: int, announcements: _Pipe, output: _Pipe
    ) -> None:
        self._process = process
        self._control_fd: int | None = control_fd
        self._announcements = announcements
        self._output = output
        self._birth: Birth | None = None
        self._over = False

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        remove: Sequence[Path] = (),
        cwd: Path | None = None,
    ) -> WardedSession:
        """Start the warden, which starts the command. Raises OSError when the machine has no room for it."""
        # Pipes of our own, not asyncio's: its `wait` hangs as long as any orphan holds one of them open.
        with ExitStack() as on_failure, ExitStack() as always:
            control_read, control_write = _pipe(always, on_failure)
            announce_read, announce_write = _pipe(on_failure, always)
            output_read, output_write = _pipe(on_failure, always)
            process = await asyncio.create_subprocess_exec(
                # As a file and isolated: the child's environment is the warden's too, and must not matter to it.
                *(sys.executable, "-I", "-S", warden.__file__, f"--announce-fd={announce_write}"),
                *(f"--remove={path}" for path in remove),
                *("--", *command),
                stdin=control_read,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(announce_write,),
                env=dict(env),
                cwd=cwd,
            )
            on_failure.pop_all()
        # The warden alone holds the other ends now, so end-of-file is its end, and ours is end-of-file to it.
        announcements = await _Pipe.connect(announce_read, ANNOUNCEMENT_BYTES_MAX)
        return cls(process, control_write, announcements, await _Pipe.connect(output_read, OUTPUT_BYTES_MAX))

    @property
    def output(self) -> asyncio.StreamReader:
        """stdout and stderr of the process and of all it starts."""
        return self._output.reader

    async def born(self) -> Birth | None:
        """The announced process; None when the warden ended before it had one. Raises TimeoutError."""
        async with asyncio.timeout(BIRTH_SECONDS_MAX):
            line = await self._announcements.reader.readline()
        if line:
            self._birth = Birth(**json.loads(line))
        return self._birth

    async def ended(self, on_exit: Callable[[int], None] = lambda returncode: None) -> End | None:
        """Wait for the end of the warden; None when it was killed itself, and left its work undone.

        `on_exit` hears how the process itself ended (negative: the signal), before what it started has been killed.
        """
        end: End | None = None
        while line := await self._announcements.reader.readline():
            told = json.loads(line)
            if "exited" in told:
                on_exit(told["exited"])
            elif "returncode" in told:
                end = End(told["returncode"], told["killed"], tuple(told["left"]))
        await self._process.wait()
        self._over = True
        return end

    def ask_to_stop(self, grace_seconds: float) -> None:
        """SIGTERM for the process now, SIGKILL for all that is left after the grace."""
        if self._control_fd is None or self._over:
            return
        try:
            os.write(self._control_fd, b"stop %f\n" % grace_seconds)
        except BrokenPipeError:
            return  # The warden ends in this very moment; `ended` tells how.

    def kill_warden(self) -> None:
        """The last resort, when it does not do its work: `ended` then returns None."""
        if not self._over:
            self._process.kill()

    async def abandon(self) -> None:
        """In place of `ended`, after a failure of ours: nothing of the guarded process is left when this returns."""
        self.close()
        try:
            await asyncio.wait_for(self._process.wait(), ABANDON_SECONDS_MAX)
        except TimeoutError:
            self.kill_warden()
            await self._process.wait()
        self._over = True

    def close(self) -> None:
        """Let go of the pipes; to a warden that still runs it means that its parent is gone."""
        if self._control_fd is not None:
            os.close(self._control_fd)
            self._control_fd = None
            self._announcements.close()
            self._output.close()

    def pids(self) -> tuple[int, ...]:
        """The guarded process first, then everything else below the warden; empty when all is gone."""
        if self._over:
            return ()
        below = [entry.pid for entry in warden.living_descendants(self._process.pid)]
        first = [] if self._birth is None else [pid for pid in below if pid == self._birth.pid]
        return (*first, *(pid for pid in below if pid not in first))


def _pipe(closes_read: ExitStack, closes_write: ExitStack) -> tuple[int, int]:
    """A new pipe (reading end, writing end) with who closes which."""
    read_fd, write_fd = os.pipe()
    closes_read.callback(os.close, read_fd)
    closes_write.callback(os.close, write_fd)
    return read_fd, write_fd
