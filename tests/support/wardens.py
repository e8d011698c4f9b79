"""A warden started from a test, with the parent's ends of its pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from support.processes import SECONDS_MAX, wait_until
from support.scripted_engine import __file__ as SCRIPTED_ENGINE

#: As an argument of a Python command: prints "up", then sleeps.
SLEEPER = ("-c", "import time; print('up', flush=True); time.sleep(600)")
#: The same, deaf to SIGTERM.
STUBBORN = ("-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)")


@dataclass(slots=True)
class StartedWarden:
    """Closing it is the parent's death."""

    process: subprocess.Popen[bytes]
    _announcements: IO[bytes]

    def __enter__(self) -> StartedWarden:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.abandon()
        self.process.wait(timeout=30)
        self._announcements.close()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def told(self) -> dict[str, Any]:
        """The next announcement; empty at its end."""
        line = self._announcements.readline()
        return dict(json.loads(line)) if line else {}

    def line(self) -> str:
        """The next line of the child's output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def say(self, line: bytes) -> None:
        """Something over the control pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def abandon(self) -> None:
        """Close the control pipe."""
        assert self.process.stdin is not None
        self.process.stdin.close()


def start_warden(
    *command: str,
    flags: tuple[str, ...] = (),
    program: str = sys.executable,
    warden: tuple[str, ...] = ("-m", "shrk_node_agent.engine.warden"),
) -> StartedWarden:
    """The warden of `python COMMAND...`, or of another program."""
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(
        [sys.executable, *warden, f"--announce-fd={write_fd}", *flags, "--", program, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(write_fd,),
    )
    os.close(write_fd)
    return StartedWarden(process, os.fdopen(read_fd, "rb"))


def start_family(flags: tuple[str, ...] = ()) -> tuple[StartedWarden, list[int]]:
    """A warden and [head, a stubborn relative in its session, a stubborn one that left the session]."""
    started = start_warden(*(SCRIPTED_ENGINE, "--uds", "unused", "--model", "m", "--family", "--deaf"), flags=flags)
    head = int(started.told()["pid"])
    relatives = [int(started.line().removeprefix("relative ")) for _ in range(2)]
    return started, [head, *relatives]


def wait_for_file(path: Path, seconds: float = SECONDS_MAX) -> str:
    """The content of a file that another process is about to write, with a newline at its end."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path} is written", seconds)
    return path.read_text()
