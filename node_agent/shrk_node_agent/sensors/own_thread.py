"""A thread for calls into a driver that may hang: one call at a time, and nobody waits longer than they want.

It is a daemon: a call that never returns must not keep the agent from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shrk_node_agent.sensors.gpu import SensorsFailed

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class NoAnswer(Exception):
    """The call, or the one before it, has not returned in time."""


@dataclass(frozen=True, slots=True)
class _Order(Generic[T]):
    work: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[T | SensorsFailed]

    def run(self) -> T | SensorsFailed:
        try:
            return self.work()
        except SensorsFailed as failed:
            return failed
        except Exception as surprise:
            _log.exception("sensors_failed_unexpectedly")
            return SensorsFailed(f"the sensors failed ({surprise!r}); please report it with the agent's log")

    def tell(self, outcome: T | SensorsFailed) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class OwnThread:
    """Starts with the first call. All of it belongs to one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._orders: queue.SimpleQueue[_Order[object] | None] = queue.SimpleQueue()
        self._outstanding: asyncio.Future[object] | None = None
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T], seconds: float) -> T:
        """What `work` returns, or the SensorsFailed that it raises.

        Raises NoAnswer after `seconds`. What a late call returns is dropped: nobody can say when it was true. The next
        one is begun only when it has returned.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                while self._outstanding is not None and not self._outstanding.done():
                    await asyncio.wait([self._outstanding])
                outcome: asyncio.Future[T | SensorsFailed] = loop.create_future()
                self._put(_Order(work, loop, outcome))
                await asyncio.wait([outcome])
        except TimeoutError as error:
            raise NoAnswer from error
        result = outcome.result()
        if isinstance(result, SensorsFailed):
            raise result
        return result

    def end(self) -> None:
        """No more calls: the thread ends after the one under way."""
        self._orders.put(None)

    def _put(self, order: _Order[T]) -> None:
        self._outstanding = order.outcome  # type: ignore[assignment]  # only ever asked whether it is done
        self._orders.put(order)  # type: ignore[arg-type]  # the queue does not care what comes back
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            outcome = order.run()
            try:
                order.loop.call_soon_threadsafe(order.tell, outcome)
            except RuntimeError:
                return  # The loop is closed: the agent has ended while the driver hung.
