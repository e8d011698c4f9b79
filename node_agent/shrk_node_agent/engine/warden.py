"""Stands between a parent and one child process: whatever dies, and however, nothing of the child outlives it.

    python -m shrk_node_agent.engine.warden [--grace S] [--orphan-grace S] [--announce-fd N] [--remove PATH ...]
                                            -- COMMAND...

fd 0 is a pipe whose write end only the parent holds. End-of-file means that the parent is gone; a line
`stop SECONDS` asks for an end within that grace. SIGTERM does the same with `--grace`. When the child ends by
itself, what it started is killed at once. The exit status is the child's (128 + n after signal n).

On `--announce-fd` lines of JSON appear: at birth `{"pid", "start", "session", "boot_id"}`, `{"exited"}` as soon as the
child has ended within its grace, and at the end `{"returncode", "killed", "left"}`; a reader that sees end-of-file
without the last line knows that the warden itself was killed (then `sweep` finishes its work).

A program of its own, on the standard library alone and single-threaded: it needs no environment of ours
(`python -I -S warden.py` runs), starts in a few milliseconds, and may fork and set a death signal safely, which
a process with gRPC's threads may not.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: Time to end by itself after a stop: vLLM takes 0.4 s, a busy one somewhat longer.
GRACE_SECONDS = 10.0
#: The same when the parent is gone. `shrk dev` promises that nothing is left 5 s after its own SIGKILL, and
#: with wardens nested in wardens only the outermost grace counts.
ORPHAN_GRACE_SECONDS = 1.5
#: A warden among the descendants is spared this long, so that it can remove its own files: it needs a moment
#: only, since everything it guards is killed at the same time.
MERCY_SECONDS = 1.0
#: A process that survives SIGKILL this long sits in the kernel (a broken driver); waiting on does not help.
WIPE_SECONDS_MAX = 10.0
#: Between two looks at /proc while killing.
WIPE_INTERVAL_SECONDS = 0.02
#: What fits a `stop SECONDS` line, with room; more without a newline is not our parent talking.
CONTROL_BYTES_MAX = 256

#: How wardens recognise each other in /proc; the kernel keeps 15 bytes.
PROCESS_NAME = "shrk-warden"

# From linux/prctl.h; Python does not name them.
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36

_WATCHED_SIGNALS = (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One line of the kernel's process table."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    #: In clock ticks since boot; with the pid and the boot id it names a process for ever.
    start: int

    @property
    def dead(self) -> bool:
        """It has ended and only waits to be collected."""
        return self.state in "ZX"


def read_process(pid: int) -> ProcessEntry | None:
    """The process as /proc shows it now, None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in brackets and may itself hold spaces and brackets.
    opened, closed = stat.index(b"("), stat.rindex(b")")
    fields = stat[closed + 2 :].split()
    return ProcessEntry(
        pid=pid,
        name=stat[opened + 1 : closed].decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        start=int(fields[19]),
    )


def living_processes() -> Iterator[ProcessEntry]:
    """All processes of this machine that have not ended."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            entry = read_process(int(name))
            if entry is not None and not entry.dead:
                yield entry


def living_descendants(root: int) -> list[ProcessEntry]:
    """Everything below `root`, whatever its session or group, parents before children."""
    children: dict[int, list[ProcessEntry]] = {}
    for entry in living_processes():
        children.setdefault(entry.parent, []).append(entry)
    found: list[ProcessEntry] = []
    front = children.get(root, [])
    while front:
        found += front
        front = [child for entry in front for child in children.get(entry.pid, [])]
    return found


def boot_id() -> str:
    """Changes with every boot of this machine, and start times count from there."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True)
class Ward:
    """The child, and what has become of it."""

    pid: int
    #: Negative: the signal that ended it. None while it lives.
    returncode: int | None = None

    def collect(self) -> None:
        """Collect every zombie there is, ours and those of orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return  # Nobody below us any more.
            if pid == 0:
                return
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)


@dataclass(slots=True)
class Parent:
    """What the parent says over fd 0."""

    grace_when_gone: float
    listening: bool = True
    _unread: bytes = field(default=b"")

    def heard(self) -> float | None:
        """Read what came; the seconds left to the child, None when nothing was asked."""
        try:
            received = os.read(0, CONTROL_BYTES_MAX)
        except OSError:
            received = b""  # A broken pipe is the same news as a closed one.
        if not received:
            self.listening = False
            return self.grace_when_gone
        *lines, self._unread = (self._unread + received).split(b"\n")
        self._unread = self._unread[-CONTROL_BYTES_MAX:]
        asked = [float(line[5:]) for line in lines if line.startswith(b"stop ")]
        return min(asked, default=None)


def spawn(command: list[str]) -> Ward:
    """Start the command in a session of its own, with a death signal tied to us."""
    warden = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    # Held back until the child is past our handlers: a stop right after the start is not lost in them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED_SIGNALS)
    pid = os.fork()
    if pid == 0:
        _become(command, warden, libc)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED_SIGNALS)
    return Ward(pid)


def _become(command: list[str], warden: int, libc: ctypes.CDLL) -> NoReturn:
    """The child's side of the fork; never returns."""
    try:
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != warden:
            os._exit(1)  # It died before the death signal was set.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Python ignores SIGPIPE and SIGXFSZ, and a program that is executed would inherit that.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, *_WATCHED_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED_SIGNALS)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)  # A shell's status for "command not found"; no clean-up of the parent's may run here.


def wait_for_end(ward: Ward, wake_fd: int, terminated: list[int], options: argparse.Namespace) -> None:
    """Return when the child has ended, or when its grace after a stop is over."""
    parent = Parent(grace_when_gone=options.orphan_grace)
    deadline: float | None = None
    while True:
        ward.collect()
        now = time.monotonic()
        if ward.returncode is not None or (deadline is not None and now >= deadline):
            return
        sources = [wake_fd, 0] if parent.listening else [wake_fd]
        ready, _, _ = select.select(sources, [], [], None if deadline is None else deadline - now)
        asked: list[float] = []
        if wake_fd in ready:
            os.read(wake_fd, 4096)
        if terminated:
            terminated.clear()
            asked.append(options.grace)
        if 0 in ready and (grace := parent.heard()) is not None:
            asked.append(grace)
        if asked:
            if deadline is None:
                os.kill(ward.pid, signal.SIGTERM)  # Not collected yet, so the number is still its own.
            end = time.monotonic() + min(asked)
            deadline = end if deadline is None else min(deadline, end)


def wipe(ward: Ward) -> tuple[int, list[int]]:
    """SIGKILL all that is below us until nothing is; (how many were killed, which did not go)."""
    me, started = os.getpid(), time.monotonic()
    killed: set[int] = set()
    while alive := living_descendants(me):
        elapsed = time.monotonic() - started
        if elapsed > WIPE_SECONDS_MAX:
            break
        for entry in alive:
            if entry.name == PROCESS_NAME and elapsed < MERCY_SECONDS:
                continue
            try:
                os.kill(entry.pid, signal.SIGKILL)
                killed.add(entry.pid)
            except ProcessLookupError:
                continue  # It went by itself in this very moment.
        time.sleep(WIPE_INTERVAL_SECONDS)
        ward.collect()
    ward.collect()
    return len(killed), [entry.pid for entry in alive]


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; one that is not there is fine. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def announce(fd: int | None, facts: dict[str, object]) -> None:
    """One line of JSON to whoever started us."""
    if fd is None:
        return
    try:
        os.write(fd, json.dumps(facts).encode() + b"\n")
    except BrokenPipeError:
        return  # The parent is gone, which fd 0 tells as well.


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line; argparse ends the program with a usage message on a wrong one."""
    parser = argparse.ArgumentParser(prog="warden", description="Run COMMAND so that nothing of it outlives us.")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds after SIGTERM")
    parser.add_argument(
        "--orphan-grace", type=float, default=ORPHAN_GRACE_SECONDS, help="seconds after the parent's death"
    )
    parser.add_argument("--announce-fd", type=int, help="where to tell of birth and end")
    parser.add_argument(
        "--remove", type=Path, action="append", default=[], help="a file or folder to remove at the end"
    )
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def listen_for_signals() -> tuple[int, list[int]]:
    """(a file descriptor that becomes readable with each signal, a list that grows with each SIGTERM)."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    terminated: list[int] = []

    def on_terminate(number: int, _frame: FrameType | None) -> None:
        terminated.append(number)

    def on_nothing(_number: int, _frame: FrameType | None) -> None:
        """Only wakes the loop."""

    # Ctrl-C, Ctrl-\ and a closed terminal are the parent's business. A handler, not SIG_IGN, which the child
    # would inherit.
    for number in _WATCHED_SIGNALS:
        signal.signal(number, on_terminate if number == signal.SIGTERM else on_nothing)
    return wake_read, terminated


def main(arguments: list[str] | None = None) -> int:
    """Run one child to its end; the exit status for the shell."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # Orphans below us come to us, not to init.
    libc.prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    if options.announce_fd is not None:
        os.set_inheritable(options.announce_fd, False)
    wake_fd, terminated = listen_for_signals()
    ward = spawn(options.command)
    born = read_process(ward.pid)  # Even if it has ended already: nobody has collected it.
    assert born is not None
    announce(
        options.announce_fd,
        {"pid": ward.pid, "start": born.start, "session": ward.pid, "boot_id": boot_id()},
    )
    try:
        wait_for_end(ward, wake_fd, terminated, options)
        if ward.returncode is not None:
            # To kill what it started may take seconds, and somebody wants to know at once whether it crashed.
            announce(options.announce_fd, {"exited": ward.returncode})
    finally:  # Also when we fail ourselves: nothing may stay.
        killed, left = wipe(ward)
    for path in options.remove:
        try:
            remove(path)
        except OSError as error:
            sys.stderr.write(f"warden: cannot remove {path}: {error.strerror}\n")
    announce(options.announce_fd, {"returncode": ward.returncode, "killed": killed, "left": left})
    if ward.returncode is None:
        return 1
    return ward.returncode if ward.returncode >= 0 else 128 - ward.returncode


if __name__ == "__main__":
    sys.exit(main())
