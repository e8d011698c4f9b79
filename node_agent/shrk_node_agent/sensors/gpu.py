"""What any GPU sensor offers: readings, two actuators whose effect is read back, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from shrk_contract.trouble import Trouble
from shrk_node_agent.state.devices import Device, GpuReading


class SensorsFailed(Trouble):
    """Nothing could be read of any GPU: the driver is gone, or does not answer. `str()` says why, and what to do."""


class VisibleDevicesWrong(SensorsFailed):
    """`visible_devices` names what is not there: for the owner to mend before anything starts."""

    exit_code: ClassVar[int] = 5


class GpuKind(StrEnum):
    """The setting `gpu`: `auto` is NVML where the driver is installed, else nothing; `scripted` plays a file."""

    AUTO = "auto"
    NVML = "nvml"
    NONE = "none"
    SCRIPTED = "scripted"


class Metric(StrEnum):
    """All that is asked of a GPU; the words that `shrk doctor` prints."""

    NAME = "name"
    UUID = "UUID"
    MEMORY = "memory"
    TEMPERATURE = "temperature"
    POWER = "power"
    POWER_LIMIT = "power limit"
    POWER_LIMIT_RANGE = "range of the power limit"
    TARGET_TEMPERATURE = "target temperature"
    UTILISATION = "utilisation"
    THROTTLE = "throttle reasons"
    COMPUTE_PROCESSES = "computing processes"
    GRAPHICS_PROCESSES = "drawing processes"


@dataclass(frozen=True, slots=True)
class Actuated:
    """What became of an order to a GPU."""

    #: Read back from the driver, and equal to what was asked.
    confirmed: bool
    #: Why not, in a sentence; empty where it was confirmed.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """What a setting may be, both ends included."""

    minimum: float
    maximum: float

    def holds(self, value: float) -> bool:
        """False for NaN too."""
        return self.minimum <= value <= self.maximum


@dataclass(frozen=True, slots=True)
class Abilities:
    """What may be asked of one GPU. That a range is told does not say that this user may set it."""

    #: Watts; None: its driver does not know such a limit.
    power_limit: Span | None = None
    #: Degrees Celsius; None likewise.
    target_temperature: Span | None = None
    #: What its driver does not tell, with the driver's own word for why.
    untold: Mapping[Metric, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one machine's sensors can do, for `shrk doctor`."""

    #: "nvml", "scripted" or "none".
    source: str
    #: The driver's version; empty where there is none or it does not tell.
    driver: str = ""
    gpus: tuple[tuple[Device, Abilities], ...] = ()
    #: GPUs of this machine that we do not use, by index, with the reason.
    left_out: Mapping[int, str] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """As JSON; watts and degrees Celsius."""
        return {
            "source": self.source,
            "driver": self.driver,
            "gpus": [
                {
                    "index": device.index,
                    "uuid": device.uuid,
                    "name": device.name,
                    "power_limit_watts": _ends(abilities.power_limit),
                    "target_celsius": _ends(abilities.target_temperature),
                    "not_told": {str(metric): why for metric, why in sorted(abilities.untold.items())},
                }
                for device, abilities in self.gpus
            ],
            "left_out": [{"index": index, "reason": why} for index, why in sorted(self.left_out.items())],
        }


class Gpus(Protocol):
    """This machine's GPUs, as far as the owner lets us see them. Nothing here blocks the event loop."""

    async def read(self) -> tuple[GpuReading, ...]:
        """One poll of all of them, in the order of their indexes; a metric that cannot be read is None.

        Raises SensorsFailed; nothing is known then, and the next poll may go well again.
        """
        ...

    async def set_power_limit(self, uuid: str, watts: float) -> Actuated:
        """Limit what a GPU draws; never raises for what a driver does. `close` takes it back."""
        ...

    async def set_target_temperature(self, uuid: str, celsius: float) -> Actuated:
        """At which a GPU slows itself down; never raises for what a driver does. `close` takes it back."""
        ...

    def abilities(self, uuid: str) -> Abilities:
        """As the last poll found them; none of them for a GPU that is not known yet."""
        ...

    def capabilities(self) -> Capabilities:
        """All of it, as the last poll found it."""
        ...

    async def close(self) -> None:
        """Take back what was set, and let go of the driver; returns in bounded time also where it hangs."""
        ...


def abilities_in(capabilities: Capabilities, uuid: str) -> Abilities:
    """Of one GPU; none of them where it is not known."""
    return next((abilities for device, abilities in capabilities.gpus if device.uuid == uuid), Abilities())


def _ends(span: Span | None) -> list[float] | None:
    return None if span is None else [span.minimum, span.maximum]
