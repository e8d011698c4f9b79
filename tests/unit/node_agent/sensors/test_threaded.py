"""A driver in its own thread: what is known of it stays known while it hangs, and closing it ends in time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shrk_node_agent.sensors.gpu import Abilities, Actuated, Capabilities, SensorsFailed, Span
from shrk_node_agent.sensors.threaded import ThreadedGpus
from shrk_node_agent.state.devices import Device, GpuReading

READINGS = (GpuReading("GPU-x", 0, "a GPU", temperature_celsius=50.0),)
ABILITIES = Abilities(power_limit=Span(100, 200))


class PlayedDriver:
    """Answers at once, unless it is to hang or to be gone."""

    source = "played"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.gone = ""
        self.calls: list[str] = []

    def read(self) -> tuple[GpuReading, ...]:
        self._call("read")
        return READINGS

    def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        self._call(f"{uuid} {watts:g} W")
        return Actuated(True)

    def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        self._call(f"{uuid} {celsius:g} °C")
        return Actuated(True)

    def capabilities(self) -> Capabilities:
        return Capabilities(self.source, gpus=((Device(0, "GPU-x", "a GPU"), ABILITIES),))

    def close(self) -> None:
        self._call("close")

    def _call(self, what: str) -> None:
        self.calls.append(what)
        self.open.wait()
        if self.gone:
            raise SensorsFailed(self.gone)


async def test_readings_orders_and_the_end_reach_the_driver_in_order() -> None:
    driver = PlayedDriver()
    gpus = ThreadedGpus(driver)
    assert await gpus.read() == READINGS
    assert await gpus.set_power_limit("GPU-x", 150) == Actuated(True)
    assert await gpus.set_target_temperature("GPU-x", 70) == Actuated(True)
    await gpus.close()
    assert driver.calls == ["read", "GPU-x 150 W", "GPU-x 70 °C", "close"]


async def test_abilities_are_known_from_the_first_poll_on() -> None:
    gpus = ThreadedGpus(PlayedDriver())
    assert gpus.abilities("GPU-x") == Abilities()
    await gpus.read()
    assert gpus.abilities("GPU-x") == ABILITIES
    assert gpus.abilities("GPU-y") == Abilities()
    await gpus.close()


async def test_a_driver_that_hangs_fails_polls_and_orders_and_closes_in_time() -> None:
    driver = PlayedDriver()
    gpus = ThreadedGpus(driver, poll_seconds=0.01)
    driver.open.clear()
    with pytest.raises(SensorsFailed, match=r"has not answered for 0\.01 s"):
        await gpus.read()
    refused = await gpus.set_power_limit("GPU-x", 150)
    assert not refused.confirmed
    assert "has not answered" in refused.reason
    await gpus.close()
    assert driver.calls == ["read"]
    driver.open.set()


async def test_a_driver_that_is_gone_refuses_orders_in_words_and_closes_all_the_same() -> None:
    driver = PlayedDriver()
    gpus = ThreadedGpus(driver)
    driver.gone = "no driver"
    with pytest.raises(SensorsFailed, match="no driver"):
        await gpus.read()
    assert await gpus.set_target_temperature("GPU-x", 70) == Actuated(False, "no driver")
    await gpus.close()


async def test_polls_that_are_asked_for_together_are_all_answered() -> None:
    gpus = ThreadedGpus(PlayedDriver())
    assert await asyncio.gather(*(gpus.read() for _ in range(5))) == [READINGS] * 5
    await gpus.close()
