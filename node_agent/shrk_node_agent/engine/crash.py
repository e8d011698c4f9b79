"""Whether an engine crashed under an attempt: a coordinator wants to know which request its engines die of.

A crash is an end of the engine's own process by itself, otherwise than by SIGKILL or SIGTERM, which others send, and
otherwise than in good order. Two things are not known here. vLLM's core is a process of its own, whose front end tells
that it is gone, and not how: that counts as a crash, be it that the kernel killed the core for want of memory. And of
the attempts that are lost together any one may be the cause. So a coordinator convicts nobody of one crash.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from shrk_contract.terms import Fault
from shrk_node_agent.attempts import Failed

#: How long an attempt that was lost without a token waits for the end of the engine's process to be known. A crashed
#: one has ended when its connections close, and its warden tells within milliseconds; the rest is for a busy machine.
CRASH_SECONDS_MAX = 0.25
#: The failure's code where the engine crashed.
ENGINE_CRASHED = "engine_crashed"
#: The failure's code where the engine broke off.
ENGINE_LOST = "engine_lost"

#: Ends that others cause, and the end in good order that a front end comes to when it is told to stop.
_NO_CRASHES = frozenset({-signal.SIGKILL, -signal.SIGTERM, 0})


def crash_of(returncode: int) -> str:
    """How a process crashed that ended by itself, in a word or two; empty where that was no crash."""
    if returncode in _NO_CRASHES:
        return ""
    return signal_name(-returncode) if returncode < 0 else f"exit status {returncode}"


def signal_name(number: int) -> str:
    """As in <signal.h>."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # Real-time signals have no names.


async def explained(failed: Failed, crash: Callable[[], Awaitable[str]]) -> Failed:
    """The failure of an attempt that has had nothing of its engine yet; as a crash, where the engine crashed.

    `crash` as an engine process's own; it is waited for CRASH_SECONDS_MAX at most, and only where the engine broke off
    or answered with a status from 500.
    """
    broke = failed.code == ENGINE_LOST or failed.http_status >= 500
    if failed.fault is not Fault.ENGINE or failed.code == ENGINE_CRASHED or not broke:
        return failed
    try:
        async with asyncio.timeout(CRASH_SECONDS_MAX):
            how = await crash()
    except TimeoutError:
        return failed
    return Failed(Fault.ENGINE, f"the engine crashed ({how})", code=ENGINE_CRASHED) if how else failed
