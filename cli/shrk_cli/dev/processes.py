"""Child processes of `shrk dev`: each under a warden, so that nothing outlives whoever started it.

The warden is the agent's own (`shrk_node_agent.engine.warden`), run as a program: its standard input is a
pipe of which only we hold the other end, the *leash*. When we die, the leash breaks and the warden ends
everything below it; "stop SECONDS" written to it asks for an end within that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shrk_cli.dev.logs import tail
from shrk_cli.errors import Trouble

WARDEN = "shrk_node_agent.engine.warden"
#: From a broken leash to SIGKILL. Wardens nest twice (ours, then the agent's own), and all of it has to
#: be gone 5 s after kill -9 of `shrk dev`.
ORPHAN_GRACE_SECONDS = 1.5
#: Until a fresh warden has told the id of its child: two Python starts, on a machine busy with engines.
ANNOUNCE_SECONDS_MAX = 30.0
#: Past what a warden allows itself to find and kill what did not go by itself.
WIPE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Command:
    """How one child is to be run."""

    #: What people call it: "coordinator", "dev-1".
    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: Path
    #: Where its output goes, appended; None: the caller wants standard output itself.
    log: Path | None = None
    #: From SIGTERM to SIGKILL when it is stopped.
    grace_seconds: float = 10.0


def python(*arguments: str) -> tuple[str, ...]:
    """A command line for our own Python that never imports from the current folder (-P)."""
    return (sys.executable, "-P", *arguments)


class Child:
    """One life of one command."""

    def __init__(self, command: Command, warden: asyncio.subprocess.Process, leash: int) -> None:
        self.command = command
        self._warden = warden
        self._leash = leash
        #: The command's own process; the warden's until that is announced.
        self.pid = warden.pid

    async def wait(self) -> int:
        """Until it and everything below it is gone; its exit status, negative for a signal."""
        status = await self._warden.wait()
        self._let_go()
        # Like a shell, the warden tells a signal as 128 + its number.
        return 128 - status if status > 128 else status

    async def lines(self) -> AsyncIterator[str]:
        """What it writes to standard output until its end (only with Command.log None)."""
        assert self._warden.stdout is not None
        async for line in self._warden.stdout:
            yield line.decode(errors="replace").rstrip("\n")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after its grace; returns when nothing of it is left."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._warden.wait(), self.command.grace_seconds + WIPE_SECONDS)
        except TimeoutError:
            await self.kill()
        self._let_go()

    async def kill(self) -> None:
        """End it and everything below it at once."""
        if self._leash >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has just ended by itself
                os.write(self._leash, b"stop 0\n")
        self._let_go()
        try:
            await asyncio.wait_for(self._warden.wait(), WIPE_SECONDS)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._warden.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._warden.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._warden.send_signal(number)

    def _let_go(self) -> None:
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1


async def spawn(command: Command, lifeline: int) -> Child:
    """Start a command under a warden and learn its process id.

    `lifeline` is the write end of the janitor's pipe, handed to the warden. Raises Trouble when the
    warden does not come up.
    """
    leash_read, leash = os.pipe()
    announce, announce_write = os.pipe()
    output = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if command.log else None
    try:
        warden = await asyncio.create_subprocess_exec(
            *python("-m", WARDEN),
            *("--grace", str(command.grace_seconds), "--orphan-grace", str(ORPHAN_GRACE_SECONDS)),
            *("--announce-fd", str(announce_write), "--", *command.arguments),
            stdin=leash_read,
            stdout=asyncio.subprocess.PIPE if output is None else output,
            stderr=output,  # None: ours, so that its words reach the terminal
            env=command.environment,
            cwd=command.working_dir,
            pass_fds=(announce_write, lifeline),
            # Ctrl-C and a closed terminal are for us alone to see; we then stop things in order.
            start_new_session=True,
        )
    except BaseException:
        os.close(leash)
        os.close(announce)
        raise
    finally:
        os.close(leash_read)
        os.close(announce_write)
        if output is not None:
            os.close(output)
    child = Child(command, warden, leash)
    try:
        child.pid = await asyncio.wait_for(_announced_pid(announce), ANNOUNCE_SECONDS_MAX)
    except (TimeoutError, ValueError, KeyError) as error:
        await child.kill()
        raise Trouble(
            f"{command.name} could not be started",
            why="\n".join(["its warden did not say which process it watches", *tail(command.log)]),
            remedy="check the installation: make setup",
        ) from error
    except BaseException:
        await child.kill()
        raise
    return child


async def run_to_end(
    command: Command, lifeline: int, seconds_max: float, on_line: Callable[[str], None] | None = None
) -> str:
    """Run a command that ends by itself and return its standard output, telling each line as it comes.

    Raises Trouble when it fails or takes longer; its standard error is ours.
    """
    child = await spawn(command, lifeline)
    output: list[str] = []
    try:
        async with asyncio.timeout(seconds_max):
            async for line in child.lines():
                output.append(line)
                if on_line:
                    on_line(line)
            status = await child.wait()
    except TimeoutError as error:
        raise Trouble(
            f"{command.name} took longer than {seconds_max:g} s",
            why="the machine may be short of memory or processor time",
            remedy="stop what else runs on it, or ask for fewer nodes: shrk dev --nodes 1",
        ) from error
    finally:
        await child.kill()
    if status != 0:
        raise Trouble(f"{command.name} failed: it {how_it_ended(status)}", why="its own words are above")
    return "\n".join(output)


async def _announced_pid(announce: int) -> int:
    """The process id that a warden writes as a line of JSON; closes the pipe."""
    reader = asyncio.StreamReader(limit=4096)
    pipe = os.fdopen(announce, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return int(json.loads(await reader.readline())["pid"])
    finally:
        transport.close()


def how_it_ended(status: int) -> str:
    """An exit status as the end of a sentence whose subject is the process."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"
