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

from shrk_contract.notify import Overseer

log = structlog.get_logger("shrk.service")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class BackgroundFailed(Exception):
    """A task of ours ended by an error: a bug, which no operator can mend. The cause is attached."""


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


async def run_until_signalled(service: Service, overseer: Overseer | None = None) -> None:
    """Start; on SIGINT or SIGTERM drain and stop. A second signal ends the drain. `overseer` hears of the beginning and
    of the end; None: the one that started this process, if any.

    Raises BackgroundFailed, once everything is stopped, where a signal came from a task that failed.
    """
    # An event and not a queue: a signal that arrives as a step ends is still there for the next step to see.
    signalled = asyncio.Event()
    overseer = overseer or Overseer.of_this_process()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, signalled.set)
    try:
        if await _unless(signalled, service.start()):
            overseer.ready()
            await signalled.wait()
            signalled.clear()
            log.info("draining")
            overseer.stopping()
            await _unless(signalled, service.drain())
    finally:
        try:
            await service.stop()
        finally:
            log.info("stopped")
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


async def _unless(signalled: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, or give it up at a signal; whether it was done. Its errors are raised in both cases."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
    if working.cancelled():
        return False
    working.result()
    return True


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """A task that must not end by itself: its failure stops the process with a word, not in silence.

    Raises BackgroundFailed at its end where the task has failed, so that the process's status says so too.
    """
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
        if not task.cancelled() and (error := task.exception()):
            raise BackgroundFailed(f"the background task {name!r} failed: {error!r}") from error


def configure_logs(style: str) -> None:
    """`console` for people, `json` for machines, `auto` by whether stderr is a terminal. Logs go to stderr."""
    people = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer()
    if people:
        # The default prints the values of local variables, and there keys, tokens and prompts are.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
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
