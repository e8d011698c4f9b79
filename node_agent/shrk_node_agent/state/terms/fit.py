"""What a model needs of GPUs, and which GPUs it gets: the fewest equal ones whose memory holds it.

A model needs its weights, a cache for what is read and said, and on each GPU some room besides. The engine's cache is
paged: it has to hold one full context, and for each slot a conversation of the usual length; slots that are all full to
the brim wait for each other. Where the model's shape is not known, that of a usual one of its size is taken.
A model of which nothing is known, and a GPU that does not tell its memory, get each other whole.
Bytes are told in GB of 1,000,000,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrk_node_agent.state.devices import GpuReading

#: Bytes of one weight. Four-bit kinds carry scales, and leave embeddings and norms as they were.
WEIGHT_BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "": 2.0,
    "fp8": 1.03,
    "int8": 1.03,
    "awq": 0.6,
    "gptq": 0.6,
    "int4": 0.6,
    "nvfp4": 0.6,
    "mxfp4": 0.6,
}
#: How many GPUs one model may be spread over: engines split heads by these.
SPREADS = (1, 2, 4, 8)
#: Of a GPU's memory, for one engine or several; the rest is the driver's, and its fragments.
USABLE_SHARE = 0.92
#: On each GPU beside weights and cache: the engine's context, its graphs, and what one step works on.
OVERHEAD_BYTES = 1_200_000_000
#: Tokens of a usual conversation; a longer one takes what others leave.
SLOT_TOKENS = 1_024
#: The context that an engine is given where the owner names none.
CONTEXT_TOKENS = 8_192
_REMEDY = "write what it takes in all as its `memory_gb`"


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model's attention; what its cache needs for a token follows."""

    layers: int
    kv_heads: int
    head_size: int
    #: Of one number in the cache.
    cache_bytes: float = 2.0
    #: Of queries; 0: not known. They are split over GPUs.
    heads: int = 0

    @property
    def token_bytes(self) -> float:
        """Keys and values of one token in all layers."""
        return 2.0 * self.layers * self.kv_heads * self.head_size * self.cache_bytes


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of the catalogue, as far as it is known."""

    name: str
    #: Billions.
    parameters: float | None = None
    quantisation: str = ""
    #: Of its safetensors files; counts before `parameters`.
    weights_bytes: int | None = None
    shape: Shape | None = None
    slots: int = 16
    context_tokens: int | None = None
    #: What its owner says that it takes in all; counts before everything else.
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What a model needs, in bytes."""

    weights: float
    cache: float
    overhead: float = OVERHEAD_BYTES
    kv_heads: int = 8
    heads: int = 0

    def each(self, spread: int) -> int:
        """On each of so many GPUs. A cache is split by heads: more GPUs than those keep copies."""
        return int(self.weights / spread + self.cache / min(spread, self.kv_heads) + self.overhead)

    def splits(self, spread: int) -> bool:
        """Whether engines can split it so."""
        return self.heads % spread == 0


@dataclass(frozen=True, slots=True)
class SizeUnknown:
    """Nothing can be said about it, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a model goes. No devices: nowhere, and the reason says what is missing."""

    devices: tuple[str, ...] = ()
    tensor_parallel: int = 0
    #: On all its GPUs together; where it goes nowhere, what it needs at least.
    bytes_needed: int = 0
    reason: str = ""
    #: It has its GPU to itself: how much it needs, or how much there is, is not known.
    whole: bool = False

    @property
    def fits(self) -> bool:
        """Whether it goes somewhere."""
        return bool(self.devices)

    @property
    def bytes_each(self) -> int:
        """On each of its GPUs."""
        return self.bytes_needed // self.tensor_parallel if self.tensor_parallel else 0


def needed(model: Model) -> Need | SizeUnknown:
    """What it needs."""
    if model.memory_bytes is not None:
        return Need(model.memory_bytes, 0.0, 0.0)
    weight_bytes = WEIGHT_BYTES.get(model.quantisation)
    if not model.weights_bytes and weight_bytes is None:
        known = ", ".join(filter(None, WEIGHT_BYTES))
        return SizeUnknown(f"its quantisation {model.quantisation!r} is none of {known}: {_REMEDY}")
    weights = float(model.weights_bytes or 0) or (model.parameters or 0.0) * 1e9 * (weight_bytes or 0.0)
    if not weights:
        return SizeUnknown(f"its size is not known: {_REMEDY}")
    billions = model.parameters or weights / 1e9 / (weight_bytes or WEIGHT_BYTES[""])
    shape = model.shape or usual_shape(billions)
    context = model.context_tokens or CONTEXT_TOKENS
    tokens = max(context, model.slots * min(context, SLOT_TOKENS))
    return Need(weights, tokens * shape.token_bytes, kv_heads=shape.kv_heads, heads=shape.heads)


def usual_shape(billions: float) -> Shape:
    """That of most models of about this size."""
    for size, layers in ((2.0, 28), (6.0, 32), (16.0, 40), (40.0, 64), (90.0, 80)):
        if billions <= size:
            return Shape(layers, 8, 128)
    return Shape(96, 8, 128)


def fits(model: Model, gpus: Sequence[GpuReading], taken: Mapping[str, int] | None = None) -> Fit:
    """The smallest set of equal GPUs that holds it beside what is `taken` (bytes by UUID); of several the fullest."""
    gpus, taken, need = [gpu for gpu in gpus if not gpu.lost], taken or {}, needed(model)
    free = [gpu for gpu in gpus if gpu.uuid not in taken]
    if isinstance(need, SizeUnknown):
        return _whole(free) or Fit(reason=f"{need.reason}; until then it gets a whole GPU, and none is free")
    room = {gpu.uuid: usable(gpu) - taken.get(gpu.uuid, 0) for gpu in gpus}
    alike: dict[tuple[str, int], list[GpuReading]] = {}
    for gpu in gpus:
        alike.setdefault((gpu.name, gpu.memory_bytes), []).append(gpu)
    for spread in SPREADS:
        each = need.each(spread)
        sets = []
        for group in alike.values() if need.splits(spread) else ():
            able = sorted((g for g in group if room[g.uuid] >= each), key=lambda g: (room[g.uuid], g.index))
            if len(able) >= spread:
                sets.append(able[:spread])
        if sets:
            least = min(sets, key=lambda chosen: (sum(room[g.uuid] for g in chosen), chosen[0].index))
            chosen = sorted(least, key=lambda g: g.index)
            return Fit(tuple(g.uuid for g in chosen), spread, each * spread)
    if untold := _whole([gpu for gpu in free if not gpu.memory_bytes]):
        return untold
    return Fit(bytes_needed=need.each(1), reason=_why_not(need, list(alike.values()), room, taken))


def usable(gpu: GpuReading) -> int:
    """Bytes of its memory that engines may take together; 0: not told."""
    return int(gpu.memory_bytes * USABLE_SHARE)


def _whole(free: Sequence[GpuReading]) -> Fit | None:
    """The roomiest of these, for one model alone."""
    if not free:
        return None
    roomiest = max(free, key=lambda gpu: (gpu.memory_bytes, -gpu.index))
    return Fit((roomiest.uuid,), 1, usable(roomiest), whole=True)


def _why_not(need: Need, alike: Iterable[list[GpuReading]], room: Mapping[str, int], taken: Mapping[str, int]) -> str:
    gpus = [gpu for group in alike for gpu in group]
    told = f"needs {_gb(need.each(1))}"
    if not gpus:
        return f"{told}, and there is no GPU"
    best = max(gpus, key=lambda gpu: (room[gpu.uuid], -gpu.index))
    left = " left" if taken.get(best.uuid) else ""
    single = f"{told}, GPU {best.index} has {_gb(room[best.uuid])}{left}"
    spreads = [s for s in SPREADS[1:] if need.splits(s) and any(len(group) >= s for group in alike)]
    if not spreads:
        return single
    return f"{single}, and {spreads[-1]} GPUs need {_gb(need.each(spreads[-1]))} each"


@dataclass(slots=True)
class Packing:
    """Who is where, and what that takes of each GPU (bytes by UUID)."""

    fits: dict[str, Fit] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)


def pack(models: Iterable[Model], gpus: Sequence[GpuReading], taken: Mapping[str, int] | None = None) -> Packing:
    """All models in their owner's order, beside what is `taken`: each gets what those before it left."""
    packing = Packing(taken=dict(taken or {}))
    for model in models:
        packing.fits[model.name] = fit = fits(model, gpus, packing.taken)
        for device in fit.devices:
            packing.taken[device] = packing.taken.get(device, 0) + fit.bytes_each
    return packing


def _gb(count: float) -> str:
    return f"{max(count, 0) / 1e9:.1f} GB"
