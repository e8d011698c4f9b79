"""Waiting for an agent, beside no event loop: its status as it changes, its socket until it answers, its process's end.

Clocks and sleeps of the verbs are here and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shrk_node_agent.control_client import SECONDS_MAX, NotRunning, ask

#: How often one looks for what tells nobody: a socket that is to appear, a file that grows. People do not see less.
LOOK_SECONDS = 0.1

Document = dict[str, Any]


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()


def breathe(seconds: float = LOOK_SECONDS) -> None:
    """Let some time pass."""
    time.sleep(max(0.0, seconds))  # What is waited for tells nobody, and a verb has nothing else to do meanwhile.


def status(state_dir: Path, after: int | None = None, wait_seconds: float = 0.0) -> Document:
    """The agent's status; with `after`, once its revision is a later one, or after `wait_seconds`.

    Raises NotRunning, NotAllowed, NoAnswer.
    """
    query = "" if after is None else f"?after={after}&wait_seconds={wait_seconds:g}"
    return ask(state_dir, "GET", f"/status{query}", timeout=wait_seconds + SECONDS_MAX)


def changes(state_dir: Path, wait_seconds: float, until: float = float("inf")) -> Iterator[Document | NotRunning]:
    """The status again and again: at each change, and every `wait_seconds` where nothing changes.

    NotRunning is yielded while no agent runs, every LOOK_SECONDS. Ends at `until`, in `monotonic` seconds.
    """
    revision: int | None = None
    while True:
        left = max(0.0, until - monotonic())
        try:
            document = status(state_dir, revision, min(wait_seconds, left))
        except NotRunning as why:
            yield why
            revision = None
            breathe(min(LOOK_SECONDS, left))
        else:
            yield document
            revision = document["revision"]
        if monotonic() >= until:
            return


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when the process ends, whatever its number is used for afterwards.

    None where it has ended already, or is in another process namespace.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ended(descriptor: int | None, seconds: float) -> bool:
    """Whether the watched process ends within so many seconds; one that cannot be watched counts as ended."""
    return descriptor is None or bool(select.select([descriptor], [], [], seconds)[0])
