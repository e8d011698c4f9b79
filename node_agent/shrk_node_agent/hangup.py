"""SIGHUP: a service is asked to read its settings again, and a program whose terminal is gone is to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

from shrk_contract.service import running


def has_terminal() -> bool:
    """Whether this process has a controlling terminal: it is taken away before the signal comes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextlib.asynccontextmanager
async def answering_hangup(
    reload: Callable[[], Awaitable[object]], has_terminal: Callable[[], bool] = has_terminal
) -> AsyncIterator[None]:
    """Within, `reload` runs at each SIGHUP, one after the other; signals that come meanwhile count as one.

    Where a terminal was there at the beginning and is no more, it is SIGTERM that was meant.
    """
    had_terminal = has_terminal()
    on_terminal = [number for number in range(3) if os.isatty(number)]
    asked = asyncio.Event()

    async def answer() -> None:
        while True:
            await asked.wait()
            asked.clear()
            await reload()

    def heard() -> None:
        if had_terminal and not has_terminal():
            # A log line into nowhere is an error, and would end the drain.
            _lead_nowhere(on_terminal)
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            asked.set()

    loop = asyncio.get_running_loop()
    async with running(answer(), "reload"):
        loop.add_signal_handler(signal.SIGHUP, heard)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)


def _lead_nowhere(descriptors: list[int]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in descriptors:
        os.dup2(nowhere, number)
    os.close(nowhere)
