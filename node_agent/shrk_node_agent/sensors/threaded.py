"""Any driver whose calls block, as `Gpus`: in a thread of its own, with a time-out for each poll.

AMD's and Apple's libraries block as NVIDIA's does: they would be a `Driver` each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from shrk_node_agent.sensors.gpu import Abilities, Actuated, Capabilities, SensorsFailed, abilities_in
from shrk_node_agent.sensors.own_thread import NoAnswer, OwnThread
from shrk_node_agent.state.devices import GpuReading

#: For one poll of all GPUs, or one order. A healthy driver takes milliseconds; one that wakes its GPUs first, a second.
POLL_SECONDS_MAX = 2.0

_log = structlog.get_logger(__name__)


class Driver(Protocol):
    """One vendor's library. Every method may block, and is called in one thread only, one at a time."""

    #: As in `Capabilities.source`.
    source: str

    def read(self) -> tuple[GpuReading, ...]:
        """As `Gpus.read`; the first call loads the library."""
        ...

    def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        """As in `Gpus`. Raises SensorsFailed."""
        ...

    def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        """As in `Gpus`. Raises SensorsFailed."""
        ...

    def capabilities(self) -> Capabilities:
        """As the last `read` found them; does not raise."""
        ...

    def close(self) -> None:
        """As in `Gpus`; does not raise for what a driver does."""
        ...


class ThreadedGpus:
    """See `Gpus`."""

    def __init__(self, driver: Driver, poll_seconds: float = POLL_SECONDS_MAX) -> None:
        self._driver = driver
        self._seconds = poll_seconds
        self._thread = OwnThread(f"sensors-{driver.source}")
        self._capabilities = Capabilities(driver.source)

    async def read(self) -> tuple[GpuReading, ...]:
        """As in `Gpus`. Raises SensorsFailed also where the driver has not answered in time."""
        try:
            readings, self._capabilities = await self._thread.call(self._poll, self._seconds)
        except NoAnswer as error:
            raise SensorsFailed(self._silent()) from error
        return readings

    async def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        """As in `Gpus`."""
        return await self._actuated(lambda: self._driver.set_power_limit(uuid, watts))

    async def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        """As in `Gpus`."""
        return await self._actuated(lambda: self._driver.set_target_temperature(uuid, celsius))

    def abilities(self, uuid: str) -> Abilities:
        """As in `Gpus`."""
        return abilities_in(self._capabilities, uuid)

    def capabilities(self) -> Capabilities:
        """As in `Gpus`."""
        return self._capabilities

    async def close(self) -> None:
        """As in `Gpus`. A driver that hangs is left to itself: what was set is not taken back then, which is logged."""
        try:
            await self._thread.call(self._driver.close, self._seconds)
        except NoAnswer:
            _log.warning("sensors_left_hanging", reason=self._silent())
        except SensorsFailed as failed:
            _log.warning("sensors_not_closed", reason=str(failed))
        self._thread.end()

    def _poll(self) -> tuple[tuple[GpuReading, ...], Capabilities]:
        return self._driver.read(), self._driver.capabilities()

    async def _actuated(self, order: Callable[[], Actuated]) -> Actuated:
        try:
            return await self._thread.call(order, self._seconds)
        except NoAnswer:
            return Actuated(False, self._silent())
        except SensorsFailed as failed:
            return Actuated(False, str(failed))

    def _silent(self) -> str:
        return (
            f"the GPU driver ({self._driver.source}) has not answered for {self._seconds:g} s; "
            "if that goes on, look for Xid in the kernel's log and restart the machine"
        )
