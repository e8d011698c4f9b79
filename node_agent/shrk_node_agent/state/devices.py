"""GPUs as values: what one poll read of each, and which of them the owner lets us see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Throttle reasons in words, as `GpuReading.throttle` has them. These two mean that the card protects itself from heat.
HARDWARE_THERMAL = "hardware thermal slowdown"
SOFTWARE_THERMAL = "software thermal slowdown"
#: A slowdown that the card does not explain: heat, power or an external brake.
HARDWARE_SLOWDOWN = "hardware slowdown"
POWER_BRAKE = "power brake"
POWER_CAP = "power cap"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that has the GPU open. In a container its pid is the host's."""

    pid: int
    #: Of the GPU's memory; None: the driver does not tell.
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one poll, as its driver told it, absurd values included: who uses them judges. None: not told."""

    #: "GPU-..."; "index-N" for one that is lost before it told.
    uuid: str
    #: As nvidia-smi counts.
    index: int
    name: str
    #: All of it; 0: not told.
    memory_bytes: int = 0
    memory_free_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    #: The limit in force.
    power_limit_watts: float | None = None
    #: 0 to 1.
    utilisation: float | None = None
    #: Why its clocks are held down, in words; empty too where the driver does not tell.
    throttle: tuple[str, ...] = ()
    #: Computing and drawing ones; each pid once.
    processes: tuple[GpuProcess, ...] | None = None
    #: Fallen off the bus (Xid 79), or it needs a reset: nothing can be asked of it.
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """What a GPU goes by."""

    index: int
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class DevicesRefused:
    """`visible_devices` names what is not there."""

    #: A sentence with the remedy, for the owner.
    reason: str


def visible(wanted: Sequence[str], known: Sequence[Device]) -> tuple[Device, ...] | DevicesRefused:
    """The devices that `visible_devices` names, in the order of `known`; all of them where it is empty.

    Each word is an index, a UUID, or as much of a UUID's beginning (with its "GPU-") as only one of them has.
    """
    if not wanted:
        return tuple(known)
    chosen: set[str] = set()
    for word in wanted:
        found = _matching(word.strip(), known)
        if len(found) != 1:
            return DevicesRefused(_why_not(word, found, known))
        chosen.add(found[0].uuid)
    return tuple(device for device in known if device.uuid in chosen)


def _matching(word: str, known: Sequence[Device]) -> list[Device]:
    if word.isascii() and word.isdigit():
        return [device for device in known if device.index == int(word)]
    if not word:
        return []
    whole = [device for device in known if device.uuid.lower() == word.lower()]
    return whole or [device for device in known if device.uuid.lower().startswith(word.lower())]


def _why_not(word: str, found: Sequence[Device], known: Sequence[Device]) -> str:
    if found:
        return (
            f"visible_devices: {word!r} is the beginning of {len(found)} UUIDs: {_listed(found)}; "
            "write as much of it as only one has, or its index"
        )
    if not known:
        return f"visible_devices: {word!r} names a GPU, and this machine has none; take visible_devices out"
    return (
        f"visible_devices: there is no GPU {word!r}; this machine has {_listed(known)}; "
        "name indexes or UUIDs of these, separated by commas, or take it out to use all"
    )


def _listed(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.index} ({device.uuid}, {device.name})" for device in devices)
