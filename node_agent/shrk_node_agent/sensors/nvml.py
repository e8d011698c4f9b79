"""NVIDIA's GPUs through NVML, by the binding that NVIDIA itself publishes; the only module that imports it.

Any call may be "Not Supported" on any card, driver or container. Each metric is asked for by itself: one that fails is
None, one that is not supported is not asked for again, and only a driver that is gone fails the whole poll.
All of this runs in one thread (`threaded.py`), which also imports the binding: that takes a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from shrk_node_agent.sensors.gpu import (
    Abilities,
    Actuated,
    Capabilities,
    Metric,
    SensorsFailed,
    Span,
    VisibleDevicesWrong,
)
from shrk_node_agent.sensors.nvml_words import FOR_EVER, GONE, LOST, code_of, throttle_words, why_gone
from shrk_node_agent.sensors.set_values import Key, NotKept, SetValues
from shrk_node_agent.state.devices import Device, DevicesRefused, GpuProcess, GpuReading, visible

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: Drivers round a limit to what the board can hold; what differs by more was not taken.
READ_BACK_WATTS_MAX = 1.0
#: Of setting back at the end: a driver that has forgotten us by then is asked anew.
CLOSE_TRIES_MAX = 2
#: What of a GPU can be set.
SETTABLE = (Metric.POWER_LIMIT, Metric.TARGET_TEMPERATURE)


class _Lost(Exception):
    """This GPU is gone, and the others are not."""


class _NotOurs(Exception):
    """The driver does not give us this GPU; `str()` says why."""


@dataclass(slots=True)
class _Gpu:
    """One GPU while a connection to the driver lasts."""

    index: int
    #: NVML's; None: it was lost before it could be had.
    handle: Any
    device: Device
    abilities: Abilities = field(default_factory=Abilities)
    #: What was told at least once: that one is asked for again even if it is "not supported" for a while.
    told: set[Metric] = field(default_factory=set)
    untold: dict[Metric, str] = field(default_factory=dict)


class NvmlDriver:
    """See `Driver`. `visible_devices` as in the settings; empty: all of them. `kept`: as `SetValues.path`."""

    source = "nvml"

    def __init__(self, visible_devices: Sequence[str] = (), kept: Path | None = None) -> None:
        self._wanted = tuple(visible_devices)
        self._nvml: Any = None
        self._initialised = False
        self._gpus: list[_Gpu] = []
        self._version = ""
        self._left_out: dict[int, str] = {}
        self._set = SetValues(READ_BACK_WATTS_MAX, kept)

    # --- Driver --------------------------------------------------------------------------------------

    def read(self) -> tuple[GpuReading, ...]:
        """As in `Driver`. Raises SensorsFailed; VisibleDevicesWrong where `visible_devices` names what is not there."""
        try:
            if not self._initialised:
                self._connect()
            return tuple(map(self._read, self._gpus))
        except SensorsFailed:
            self._disconnect()
            raise

    def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        """As in `Driver`."""
        return self._set_within(uuid, Metric.POWER_LIMIT, watts)

    def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        """As in `Driver`; whole degrees."""
        return self._set_within(uuid, Metric.TARGET_TEMPERATURE, celsius)

    def capabilities(self) -> Capabilities:
        """As in `Driver`."""
        return Capabilities(
            self.source,
            self._version,
            tuple((gpu.device, replace(gpu.abilities, untold=dict(gpu.untold))) for gpu in self._gpus),
            dict(self._left_out),
        )

    def close(self) -> None:
        """As in `Driver`: what we set is set back, unless somebody else has set it since; what is not, is logged."""
        why: dict[Key, str] = {}
        otherwise = "this GPU is not there"
        try:
            for _ in range(CLOSE_TRIES_MAX if self._set.originals() else 0):
                try:
                    why = self._restore_all()
                    break
                except SensorsFailed as failed:
                    otherwise = str(failed)
                    self._disconnect()
            for (uuid, metric), was in self._set.originals().items():
                reason = f"{why.get((uuid, metric), otherwise)}; an agent that starts here sets it back once it can"
                _log.warning("gpu_setting_not_restored", gpu=uuid, setting=str(metric), was=was, reason=reason)
        except NotKept as why_not:
            _log.warning("gpu_settings_not_restored", reason=str(why_not))
        self._disconnect()

    # --- the connection ------------------------------------------------------------------------------

    def _connect(self) -> None:
        known = self._opened()
        chosen = visible(self._wanted, [gpu.device for gpu in known])
        if isinstance(chosen, DevicesRefused):
            raise VisibleDevicesWrong(chosen.reason)
        for gpu in known:
            if gpu.device not in chosen:
                self._left_out[gpu.index] = "visible_devices does not name it"
        self._gpus = [gpu for gpu in known if gpu.device in chosen]

    def _opened(self) -> list[_Gpu]:
        """All GPUs that the driver gives us, asked anew. Raises SensorsFailed."""
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._initialised, self._left_out = True, {}
            self._version = self._told_or("", pynvml.nvmlSystemGetDriverVersion)
            found = [self._found(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            raise SensorsFailed(why_gone(pynvml, error)) from error
        return [gpu for gpu in found if gpu is not None]

    def _disconnect(self) -> None:
        if self._initialised:
            self._initialised = False
            self._told_or(None, self._nvml.nvmlShutdown)  # A driver that is gone says so, which is why we are here.

    def _found(self, index: int) -> _Gpu | None:
        """None: not for us."""
        gpu = _Gpu(index, None, Device(index, f"index-{index}", "unknown GPU"))
        try:
            self._take(gpu)
        except _Lost:
            return gpu
        except _NotOurs as why:
            self._left_out[index] = str(why)
            return None
        return gpu

    def _take(self, gpu: _Gpu) -> None:
        """Get hold of one GPU, and ask who it is and what can be set. Raises _Lost, _NotOurs and SensorsFailed."""
        nvml = self._nvml
        try:
            gpu.handle = nvml.nvmlDeviceGetHandleByIndex(gpu.index)
        except nvml.NVMLError as error:
            code = code_of(nvml, error)
            if code in GONE:
                raise SensorsFailed(why_gone(nvml, error)) from error
            raise _NotOurs(FOR_EVER[code]) if code in FOR_EVER else _Lost from error
        handle = gpu.handle
        uuid = self._ask(gpu, Metric.UUID, lambda: str(nvml.nvmlDeviceGetUUID(handle)))
        name = self._ask(gpu, Metric.NAME, lambda: str(nvml.nvmlDeviceGetName(handle)))
        gpu.device = Device(gpu.index, uuid or gpu.device.uuid, name or gpu.device.name)
        for metric in SETTABLE:
            if why_not := self._restore(gpu, metric, inherited_only=True):
                _log.warning("gpu_setting_not_restored", gpu=gpu.device.uuid, setting=str(metric), reason=why_not)
        self._learn_abilities(gpu)

    def _learn_abilities(self, gpu: _Gpu) -> None:
        nvml, handle = self._nvml, gpu.handle
        limits = self._ask(
            gpu, Metric.POWER_LIMIT_RANGE, lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        )
        ends = self._ask(
            gpu,
            Metric.TARGET_TEMPERATURE,
            lambda: [
                nvml.nvmlDeviceGetTemperatureThreshold(handle, threshold)
                for threshold in (
                    nvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN,
                    nvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX,
                )
            ],
        )
        gpu.abilities = Abilities(
            power_limit=Span(limits[0] / 1000, limits[1] / 1000) if limits else None,
            target_temperature=Span(float(ends[0]), float(ends[1])) if ends else None,
        )

    # --- reading -------------------------------------------------------------------------------------

    def _read(self, gpu: _Gpu) -> GpuReading:
        try:
            if gpu.handle is None:
                self._take(gpu)
            return self._told(gpu)
        except (_Lost, _NotOurs):
            return GpuReading(gpu.device.uuid, gpu.index, gpu.device.name, lost=True)

    def _told(self, gpu: _Gpu) -> GpuReading:
        nvml, handle = self._nvml, gpu.handle
        if gpu.abilities.power_limit is None or gpu.abilities.target_temperature is None:
            self._learn_abilities(gpu)
        # The binding reads it without a sign; a driver that says -1 means -1.
        celsius = self._ask(
            gpu, Metric.TEMPERATURE, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        )
        memory = self._ask(gpu, Metric.MEMORY, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        milliwatts = self._ask(gpu, Metric.POWER, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = self._ask(gpu, Metric.POWER_LIMIT, lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle))
        rates = self._ask(gpu, Metric.UTILISATION, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        reasons = self._ask(
            gpu,
            Metric.THROTTLE,
            # Renamed with driver 535.
            lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        return GpuReading(
            gpu.device.uuid,
            gpu.index,
            gpu.device.name,
            memory_bytes=memory.total if memory else 0,
            memory_free_bytes=memory.free if memory else None,
            temperature_celsius=None if celsius is None else float(celsius - (1 << 32) if celsius >> 31 else celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            power_limit_watts=None if limit is None else limit / 1000,
            utilisation=rates.gpu / 100 if rates else None,
            throttle=throttle_words(reasons or 0),
            processes=self._processes(gpu),
        )

    def _processes(self, gpu: _Gpu) -> tuple[GpuProcess, ...] | None:
        """None where a kind is not told just now: a game that is missing from the list would seem to have ended."""
        nvml, handle = self._nvml, gpu.handle
        asked = {
            # The third form came with driver 510.
            Metric.COMPUTE_PROCESSES: self._ask(
                gpu,
                Metric.COMPUTE_PROCESSES,
                lambda: nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle),
                lambda: nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle),
            ),
            Metric.GRAPHICS_PROCESSES: self._ask(
                gpu,
                Metric.GRAPHICS_PROCESSES,
                lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle),
                lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses_v2(handle),
            ),
        }
        kinds = {metric: found for metric, found in asked.items() if metric not in gpu.untold}
        if not kinds or None in kinds.values():
            return None
        memory: dict[int, int | None] = {}
        for process in (process for found in kinds.values() for process in found or ()):
            told = (memory.get(process.pid), process.usedGpuMemory)
            memory[process.pid] = max((size for size in told if size is not None), default=None)
        return tuple(GpuProcess(pid, memory[pid]) for pid in sorted(memory))

    def _ask(self, gpu: _Gpu, metric: Metric, *calls: Callable[[], T]) -> T | None:
        """The first of the calls that this driver has; None where it does not tell. Raises _Lost and SensorsFailed."""
        if metric in gpu.untold:
            return None
        code = ""
        for call in calls:
            try:
                value = call()
            except self._nvml.NVMLError as error:
                code = code_of(self._nvml, error)
                if code in LOST:
                    raise _Lost from error
                if code in GONE:
                    raise SensorsFailed(why_gone(self._nvml, error)) from error
                if code != "FUNCTION_NOT_FOUND":
                    break
            except UnicodeDecodeError:
                code = "NOT_SUPPORTED"  # A name that is not text: some firmware has that.
                break
            else:
                gpu.told.add(metric)
                return value
        if code in FOR_EVER and metric not in gpu.told:
            gpu.untold[metric] = FOR_EVER[code]
        return None

    def _told_or(self, otherwise: T, call: Callable[[], T]) -> T:
        try:
            return call()
        except (self._nvml.NVMLError, UnicodeDecodeError):
            return otherwise

    # --- setting -------------------------------------------------------------------------------------

    def _known(self, uuid: str) -> _Gpu | None:
        if not self._initialised:
            raise SensorsFailed("the GPU driver has not been read yet, or is gone; it is asked anew at the next poll")
        return next((gpu for gpu in self._gpus if gpu.device.uuid == uuid and gpu.handle is not None), None)

    def _set_within(self, uuid: str, metric: Metric, value: float) -> Actuated:
        """Set it, if the GPU says that it takes this value."""
        gpu = self._known(uuid)
        if gpu is None:
            return Actuated(False, f"there is no GPU {uuid!r} to set anything on")
        if metric is Metric.POWER_LIMIT:
            span, told_by, unit = gpu.abilities.power_limit, Metric.POWER_LIMIT_RANGE, "W"
        else:
            span, told_by, unit = gpu.abilities.target_temperature, metric, "°C"
        if span is None:
            return Actuated(False, f"the driver does not tell the {told_by}: {gpu.untold.get(told_by, 'no answer')}")
        if not span.holds(value):
            return Actuated(
                False, f"{value:g} {unit} is outside {span.minimum:g} to {span.maximum:g} {unit}, which this GPU takes"
            )
        if metric is Metric.POWER_LIMIT:
            return self._actuate(gpu, metric, value, READ_BACK_WATTS_MAX)
        return self._actuate(gpu, metric, round(value), 0)

    def _actuate(self, gpu: _Gpu, metric: Metric, value: float, tolerance: float) -> Actuated:
        """Set, read back, and remember what it was before, before anything is set. Never above what the owner set."""
        unit = "W" if metric is Metric.POWER_LIMIT else "°C"
        key = (gpu.device.uuid, metric)
        try:
            current = self._get(gpu, metric)
            owners = self._set.original(key, current)
            if value > owners + tolerance:
                return Actuated(False, f"its owner has set {owners:g} {unit} on GPU {gpu.index}: no more than that")
            self._set.setting(key, current, value)
            self._put(gpu, metric, value)
            back = self._get(gpu, metric)
            self._set.left(key, back)
        except NotKept as why_not:
            return Actuated(False, f"the {metric} of GPU {gpu.index} is not set: {why_not}")
        except self._nvml.NVMLError as error:
            code = code_of(self._nvml, error)
            why = "it needs root" if code == "NO_PERMISSION" else FOR_EVER.get(code, str(error))
            return Actuated(False, f"the {metric} of GPU {gpu.index} cannot be set: {why}")
        if abs(back - value) > tolerance:
            return Actuated(
                False, f"GPU {gpu.index} accepted a {metric} of {value:g} {unit}, and still has {back:g} {unit}"
            )
        return Actuated(True)

    def _restore_all(self) -> dict[Key, str]:
        """Set back what can be, and tell why the rest cannot. Raises SensorsFailed where the driver is gone."""
        if not self._initialised:  # A poll failed, or the try before this one.
            self._gpus = self._opened()
        tried = {(gpu.device.uuid, metric): self._restore(gpu, metric) for gpu in self._gpus for metric in SETTABLE}
        return {key: reason for key, reason in tried.items() if reason}

    def _restore(self, gpu: _Gpu, metric: Metric, *, inherited_only: bool = False) -> str:
        """Set it back, unless somebody else has set it since; why it cannot be, or "". `inherited_only`: what an agent
        before this one set. Raises SensorsFailed."""
        key = (gpu.device.uuid, metric)
        try:
            if self._set.inherited(key) if inherited_only else self._set.touched(key):
                before = self._set.to_restore(key, self._get(gpu, metric))
                if before is not None:
                    self._put(gpu, metric, before)
                self._set.forget(key)
        except NotKept as why_not:
            return str(why_not)
        except self._nvml.NVMLError as error:
            if code_of(self._nvml, error) in GONE:
                raise SensorsFailed(why_gone(self._nvml, error)) from error
            return str(error)
        return ""

    def _get(self, gpu: _Gpu, metric: Metric) -> float:
        nvml = self._nvml
        if metric is Metric.POWER_LIMIT:
            return float(nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle)) / 1000
        threshold = nvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR
        return float(nvml.nvmlDeviceGetTemperatureThreshold(gpu.handle, threshold))

    def _put(self, gpu: _Gpu, metric: Metric, value: float) -> None:
        nvml = self._nvml
        if metric is Metric.POWER_LIMIT:
            nvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, round(value * 1000))
        else:
            threshold = nvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR
            nvml.nvmlDeviceSetTemperatureThreshold(gpu.handle, threshold, round(value))
