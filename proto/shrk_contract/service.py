"""What the two services share as processes: background tasks, the life between two signals, and logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

import structlog

log = structlog.get_logger("shrk.service")


class Service(Protocol):
    """Something that starts, drains and stops."""

    async def start(self) -> None:
        """Open everything; on failure, leave nothing open."""
        ...

    async def drain(self) -> None:
        """Take nothing new; return when what runs has ended, or has had its time."""
        ...

    async def stop(self) -> None:
        """Close everything that is open."""
        ...


async def run_until_signalled(service: Service) -> None:
    """Start; on SIGINT or SIGTERM drain and stop. A second signal ends the drain."""
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, None)
    try:
        if not await _unless_signalled(service.start(), signals):
            return
        await signals.get()
        log.info("draining")
        await _unless_signalled(service.drain(), signals)
    finally:
        await service.stop()
        log.info("stopped")


async def _unless_signalled(work: Coroutine[Any, Any, None], signals: asyncio.Queue[None]) -> bool:
    """Do the work, or give it up at a signal; whether it was done."""
    working = asyncio.create_task(work)
    signalled = asyncio.create_task(signals.get())
    try:
        await asyncio.wait((working, signalled), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, signalled):
            task.cancel()
        await asyncio.gather(working, signalled, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """A task that must not end by itself: its failure stops the process with a word, not in silence."""
    task = asyncio.create_task(work, name=name)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("a background task failed; stopping", task=name, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def configure_logs(style: str) -> None:
    """`console` for people, `json` for machines, `auto` by whether stderr is a terminal. Logs go to stderr."""
    people = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if people else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
