"""GPUs that are played from a script, for `shrk dev`, for tests, and for machines that have none.

A script that is broken or gone is a driver that is gone: the poll fails, and the next one may go well again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shrk_node_agent.sensors.gpu import (
    Abilities,
    Actuated,
    Capabilities,
    Metric,
    SensorsFailed,
    Span,
    VisibleDevicesWrong,
    abilities_in,
)
from shrk_node_agent.sensors.heat_model import HeatModel
from shrk_node_agent.sensors.script import Script, ScriptedGpu, Setting, read_script
from shrk_node_agent.state.devices import Device, DevicesRefused, GpuProcess, GpuReading, visible

_UNTOLD = "the script says so"


@dataclass(slots=True)
class _Played:
    """What outlives a change of the script. Degrees Celsius, and what was set: watts, degrees Celsius."""

    celsius: float | None = None
    actuated: dict[Metric, float] = field(default_factory=dict)


class ScriptedGpus:
    """See `Gpus`. `clock` in seconds; `load` (0 to 1) is what the agent's engines have to do just now."""

    def __init__(
        self,
        path: Path,
        visible_devices: Sequence[str] = (),
        *,
        clock: Callable[[], float],
        load: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._path = path
        self._wanted = tuple(visible_devices)
        self._clock = clock
        self._load = load
        self._mark: tuple[int, ...] | None = None
        self._script = Script()
        self._begun_at = 0.0
        self._read_at: float | None = None
        self._played: dict[str, _Played] = {}
        self._capabilities = Capabilities("scripted")

    async def read(self) -> tuple[GpuReading, ...]:
        """As in `Gpus`."""
        now = self._clock()
        self._reread(now)
        if self._script.fails:
            raise SensorsFailed(f"the scripted GPU driver fails: {self._script.fails}")
        gpus = self._visible()
        readings = tuple(self._reading(device, gpu, now) for device, gpu in gpus)
        self._read_at = now
        self._capabilities = Capabilities("scripted", gpus=tuple((device, _abilities(gpu)) for device, gpu in gpus))
        return readings

    async def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        """As in `Gpus`."""
        return self._set(uuid, Metric.POWER_LIMIT, watts, "W", lambda gpu: (gpu.power_limit, gpu.power_limit_range))

    async def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        """As in `Gpus`."""
        return self._set(
            uuid,
            Metric.TARGET_TEMPERATURE,
            celsius,
            "°C",
            lambda gpu: (gpu.target_temperature, gpu.target_temperature_range),
        )

    def abilities(self, uuid: str) -> Abilities:
        """As in `Gpus`."""
        return abilities_in(self._capabilities, uuid)

    def capabilities(self) -> Capabilities:
        """As in `Gpus`."""
        return self._capabilities

    async def close(self) -> None:
        """As in `Gpus`."""
        for played in self._played.values():
            played.actuated.clear()

    def _set(
        self,
        uuid: str,
        metric: Metric,
        value: float,
        unit: str,
        scripted: Callable[[ScriptedGpu], tuple[Setting, tuple[float, float]]],
    ) -> Actuated:
        """`scripted`: what the script has this setting do, and its ends."""
        gpu = self._scripted(uuid)
        if gpu is None:
            return Actuated(False, f"there is no GPU {uuid!r} to set anything on")
        setting, ends = scripted(gpu)
        done = _actuated(setting, metric, value, unit, ends)
        if done.confirmed:
            self._played[uuid].actuated[metric] = value
        return done

    def _reread(self, now: float) -> None:
        try:
            found = os.stat(self._path)
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError as error:
            self._mark = None
            raise SensorsFailed(
                f"scripted_gpu: {self._path} cannot be read ({error.strerror}); name a script that can"
            ) from error
        if mark != self._mark:
            self._mark = None  # A broken script is read again at each poll, until it is mended.
            self._script = read_script(self._path)
            self._mark, self._begun_at = mark, now

    def _visible(self) -> list[tuple[Device, ScriptedGpu]]:
        known = [
            (Device(index, gpu.uuid or f"GPU-scripted-{index}", gpu.name), gpu)
            for index, gpu in enumerate(self._script.gpu)
        ]
        chosen = visible(self._wanted, [device for device, _ in known])
        if isinstance(chosen, DevicesRefused):
            raise VisibleDevicesWrong(chosen.reason)
        return [(device, gpu) for device, gpu in known if device in chosen]

    def _reading(self, device: Device, gpu: ScriptedGpu, now: float) -> GpuReading:
        played = self._played.setdefault(device.uuid, _Played())
        load = self._load() if gpu.load is None else gpu.load
        celsius, watts = self._warm(gpu, played, load, now)
        if gpu.lost:
            return GpuReading(device.uuid, device.index, device.name, lost=True)
        memory = int(gpu.memory_gb * 1e9)
        taken = sum(process.memory_gb or 0 for process in gpu.processes or ())
        free = max(0, memory - int(taken * 1e9)) if gpu.memory_free_gb is None else int(gpu.memory_free_gb * 1e9)
        limit = played.actuated.get(Metric.POWER_LIMIT) or gpu.power_limit_range[1]
        told = GpuReading(
            device.uuid,
            device.index,
            device.name,
            memory,
            free,
            celsius,
            watts,
            None if gpu.power_limit is Setting.UNSUPPORTED else limit,
            min(max(load, 0.0), 1.0),
            gpu.throttle,
            _processes(gpu),
        )
        return _without(told, gpu.untold)

    def _warm(self, gpu: ScriptedGpu, played: _Played, load: float, now: float) -> tuple[float, float]:
        """Its temperature and power now."""
        heat = gpu.heat
        model = heat.model() if heat else HeatModel()
        watts = gpu.power
        if watts is None:
            limit, target = (played.actuated.get(metric) for metric in (Metric.POWER_LIMIT, Metric.TARGET_TEMPERATURE))
            watts = model.watts(load, limit, target)
        if heat is None:
            scripted = gpu.celsius_at(now - self._begun_at)
            assert scripted is not None, "only a heat model leaves the temperature open"
            played.celsius = scripted
        elif played.celsius is None:
            played.celsius = heat.ambient if heat.start is None else heat.start
        elif self._read_at is not None:
            played.celsius = model.after(played.celsius, watts, now - self._read_at)
        return played.celsius, watts

    def _scripted(self, uuid: str) -> ScriptedGpu | None:
        """As the last poll found it."""
        for device, _ in self._capabilities.gpus:
            if device.uuid == uuid and device.index < len(self._script.gpu):
                return self._script.gpu[device.index]
        return None


def _abilities(gpu: ScriptedGpu) -> Abilities:
    limit, target = gpu.power_limit, gpu.target_temperature
    return Abilities(
        None if limit is Setting.UNSUPPORTED else Span(*gpu.power_limit_range),
        None if target is Setting.UNSUPPORTED else Span(*gpu.target_temperature_range),
        {metric: _UNTOLD for metric in sorted(gpu.untold)},
    )


def _actuated(setting: Setting, metric: Metric, value: float, unit: str, ends: tuple[float, float]) -> Actuated:
    span = Span(*ends)
    if setting is Setting.UNSUPPORTED:
        return Actuated(False, f"the driver does not tell the {metric}: {_UNTOLD}")
    if not span.holds(value):
        return Actuated(
            False, f"{value:g} {unit} is outside {span.minimum:g} to {span.maximum:g} {unit}, which this GPU takes"
        )
    if setting is Setting.REFUSED:
        return Actuated(False, f"the {metric} cannot be set: it needs root")
    if setting is Setting.IGNORED:
        return Actuated(False, f"the driver accepted a {metric} of {value:g} {unit}, and still has another")
    return Actuated(True)


def _processes(gpu: ScriptedGpu) -> tuple[GpuProcess, ...] | None:
    if gpu.processes is None:
        return None
    return tuple(
        GpuProcess(process.pid, None if process.memory_gb is None else int(process.memory_gb * 1e9))
        for process in gpu.processes
    )


def _without(reading: GpuReading, untold: frozenset[Metric]) -> GpuReading:
    """With None, or what else says "not told", for these metrics."""
    if Metric.TEMPERATURE in untold:
        reading = replace(reading, temperature_celsius=None)
    if Metric.MEMORY in untold:
        reading = replace(reading, memory_bytes=0, memory_free_bytes=None)
    if Metric.POWER in untold:
        reading = replace(reading, power_watts=None)
    if Metric.POWER_LIMIT in untold:
        reading = replace(reading, power_limit_watts=None)
    if Metric.UTILISATION in untold:
        reading = replace(reading, utilisation=None)
    if Metric.THROTTLE in untold:
        reading = replace(reading, throttle=())
    if {Metric.COMPUTE_PROCESSES, Metric.GRAPHICS_PROCESSES} <= untold:
        reading = replace(reading, processes=None)
    return reading
