"""Looks at real processes: which of them live, and waiting until they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from shrk_node_agent.engine.warden import read_process

#: Everything here takes milliseconds on an idle machine; the bound only ends a test that hangs.
SECONDS_MAX = 30.0


def alive(pids: Iterable[int]) -> list[int]:
    """Those that have not ended (zombies have)."""
    return [pid for pid in pids if (entry := read_process(pid)) is not None and not entry.dead]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS_MAX) -> None:
    """Poll, since a process that is not our child tells us nothing. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def wait_until_gone(pids: Iterable[int], seconds: float = SECONDS_MAX) -> None:
    """Fails with those that still live after `seconds`."""
    watched = tuple(pids)
    wait_until(lambda: not alive(watched), f"processes {watched} gone", seconds)
