"""Which sensors this machine gets: NVML where NVIDIA's driver is, none elsewhere, or what the owner says."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

from shrk_node_agent.sensors.gpu import GpuKind, Gpus, SensorsFailed
from shrk_node_agent.sensors.none import NoGpus
from shrk_node_agent.sensors.nvml import NvmlDriver
from shrk_node_agent.sensors.scripted import ScriptedGpus
from shrk_node_agent.sensors.threaded import ThreadedGpus

#: The kernel's part of NVIDIA's driver, once it is loaded.
_DRIVER = Path("/proc/driver/nvidia/version")
#: As the binding asks for it.
_LIBRARY = "libnvidia-ml.so.1"


def nvidia_is_here() -> bool:
    """Whether NVIDIA's driver is on this machine; WSL has its library and no /proc/driver."""
    if _DRIVER.exists():
        return True
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def choose(
    kind: GpuKind | str,
    visible_devices: Sequence[str] = (),
    script: Path | None = None,
    *,
    clock: Callable[[], float],
    load: Callable[[], float] = lambda: 0.0,
    nvidia: Callable[[], bool] = nvidia_is_here,
    kept: Path | None = None,
) -> Gpus:
    """The sensors for these settings; `clock` (seconds) and `load` (0 to 1) are for scripted ones only.

    `kept`: the file that remembers what GPUs' settings were, for the agent after one that was killed.

    Nothing is read yet: what does not work is told by the first `read`. Raises SensorsFailed where settings contradict
    each other.
    """
    if script is not None and kind != GpuKind.SCRIPTED:
        raise SensorsFailed('scripted_gpu: it is read with gpu = "scripted" only; set that, or take it out')
    match GpuKind(kind):
        case GpuKind.AUTO:
            return ThreadedGpus(NvmlDriver(visible_devices, kept)) if nvidia() else NoGpus(visible_devices)
        case GpuKind.NVML:
            return ThreadedGpus(NvmlDriver(visible_devices, kept))
        case GpuKind.NONE:
            return NoGpus(visible_devices)
        case GpuKind.SCRIPTED:
            if script is None:
                raise SensorsFailed('gpu = "scripted" needs scripted_gpu, the path of a script')
            return ScriptedGpus(script, visible_devices, clock=clock, load=load)
