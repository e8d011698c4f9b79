"""Which GPUs each model gets, and how much of them: planned together, and kept by each for as long as it is loaded.

A model gets what it needs. Where all models of the catalogue that could be here are, what is left is shared out among
them, since a larger cache serves more callers; a model whose owner says what it takes gets exactly that.
Bytes are those of one GPU unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import Fit, Model, fits, pack, usable

#: Of what is free on a GPU when an engine starts there: its own context is not in its share.
FREE_SHARE_MAX = 0.97
#: Of a GPU that a model has to itself: with less than this free, somebody else is there.
WHOLE_FREE_SHARE_MIN = 0.5
#: More than any card has.
WHOLE_CARD_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one engine runs. Without devices: on what there is."""

    #: UUIDs; it is spread evenly over them.
    devices: tuple[str, ...] = ()
    #: It may take so much of each; 0: not known, and the engine takes its default.
    bytes_each: int = 0
    #: The least with which it is worth starting; 0: nobody knows, and it has its GPU to itself.
    needed_each: int = 0
    #: All that the smallest of its GPUs has; 0: not told.
    device_bytes: int = 0

    @property
    def bytes_taken(self) -> int:
        """Of each of its GPUs, as others have to reckon."""
        return self.bytes_each if self.needed_each else WHOLE_CARD_BYTES

    def on(self, gpus: Iterable[GpuReading]) -> list[GpuReading]:
        """Its GPUs among these."""
        return [gpu for gpu in gpus if gpu.uuid in self.devices]

    def started_on(self, gpus: Iterable[GpuReading]) -> Seat | str:
        """This seat as it can be taken now, beside what other programs hold; a sentence where they hold too much."""
        seat = self
        for gpu in self.on(gpus):
            if gpu.memory_free_bytes is None or not gpu.memory_bytes:
                continue
            free = int(gpu.memory_free_bytes * FREE_SHARE_MAX)
            least = self.needed_each or int(usable(gpu) * WHOLE_FREE_SHARE_MIN)
            if free < least:
                return (
                    f"It needs {least / 1e9:.1f} GB of GPU {gpu.index}, where {free / 1e9:.1f} GB are free: "
                    "other programs hold the rest"
                )
            seat = replace(seat, bytes_each=min(seat.bytes_each, free))
        return seat


#: No GPU is counted: there is none, or nobody looks at it.
ANYWHERE = Seat()


@dataclass(frozen=True, slots=True)
class Plan:
    """Who sits where, by the models' names; who does not, and why."""

    seats: Mapping[str, Seat]
    reasons: Mapping[str, str]


def plan(
    wanted: Sequence[Model], others: Iterable[Model], gpus: Sequence[GpuReading], kept: Mapping[str, Seat]
) -> Plan:
    """Seats for those that are `wanted`, in their order, beside the seats that are `kept`.

    `others`: what this node may be asked to load besides, or instead.
    """
    taken = taken_by(kept.values())
    wanted = [model for model in wanted if model.name not in kept]
    packing = pack(wanted, gpus, taken)
    seated = {name: fit for name, fit in packing.fits.items() if fit.fits}
    unseated = [*(model for model in wanted if model.name not in seated), *others]
    exact = {model.name for model in wanted if model.memory_bytes is not None}
    grows = not any(fits(model, gpus).fits for model in unseated)
    growing = {name: fit for name, fit in seated.items() if name not in exact and not fit.whole} if grows else {}
    factors = _factors(growing, packing.taken, gpus)
    grown = {name: min(factors[device] for device in fit.devices) for name, fit in growing.items()}
    return Plan(
        seats={**kept, **{name: _seat(fit, grown.get(name, 1.0), gpus) for name, fit in seated.items()}},
        reasons={name: fit.reason for name, fit in packing.fits.items() if not fit.fits},
    )


def has_room(seat: Seat, beside: Iterable[Seat], gpus: Iterable[GpuReading]) -> bool:
    """Whether it can be taken while those others are."""
    taken = taken_by(beside)
    shared = [gpu for gpu in seat.on(gpus) if gpu.uuid in taken]
    return all(0 < seat.needed_each <= usable(gpu) - taken[gpu.uuid] for gpu in shared)


def taken_by(seats: Iterable[Seat]) -> dict[str, int]:
    """Bytes of each GPU, by its UUID."""
    taken: dict[str, int] = {}
    for seat in seats:
        for device in seat.devices:
            taken[device] = taken.get(device, 0) + seat.bytes_taken
    return taken


def _factors(growing: Mapping[str, Fit], taken: Mapping[str, int], gpus: Iterable[GpuReading]) -> dict[str, float]:
    """By how much those on each GPU may grow, so that together they fill it."""
    factors: dict[str, float] = {}
    for gpu in gpus:
        needs = sum(fit.bytes_each for fit in growing.values() if gpu.uuid in fit.devices)
        spare = usable(gpu) - taken.get(gpu.uuid, 0)
        factors[gpu.uuid] = 1.0 + max(0, spare) / needs if needs else 1.0
    return factors


def _seat(fit: Fit, factor: float, gpus: Iterable[GpuReading]) -> Seat:
    return Seat(
        devices=fit.devices,
        bytes_each=int(fit.bytes_each * factor),
        needed_each=0 if fit.whole else fit.bytes_each,
        device_bytes=min((gpu.memory_bytes for gpu in gpus if gpu.uuid in fit.devices), default=0),
    )
