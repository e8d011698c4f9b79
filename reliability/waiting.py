"""Waiting for what tells nobody when it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: Far above what anything here takes: it only ends a run that hangs.
SECONDS_MAX = 90.0


class NotInTime(Exception):
    """Something did not happen; `str()` says what."""


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS_MAX, every: float = 0.01) -> None:
    """Poll. Raises NotInTime."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(every)
