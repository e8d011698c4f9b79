"""What the GPUs of this machine told last, as values. None: the driver does not tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment."""

    uuid: str
    index: int
    name: str
    memory_bytes: int = 0
    memory_free_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    #: 0 to 1.
    utilisation: float | None = None
    #: Why it runs slower than it could, in words.
    throttle: tuple[str, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None
    #: It does not answer any more, and will not before the machine is started anew.
    lost: bool = False
