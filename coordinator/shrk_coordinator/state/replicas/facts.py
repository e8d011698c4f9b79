"""What the reconciler is told, and what it answers. Times are monotonic seconds, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from shrk_coordinator.state.events import NodeId

#: How long loading takes where nobody has loaded the model yet: 16 GB from a disk, or half of that from a mirror.
LOAD_SECONDS = 120.0


class Condition(Enum):
    """How a model's engine is on one node."""

    ABSENT = "absent"
    LOADING = "loading"
    SERVING = "serving"
    #: It runs, and requests keep failing there: it is probed now and then, and may be well again any moment.
    SICK = "sick"
    FAILED = "failed"


#: Conditions in which a model has been loaded, and those in which it takes memory.
LOADED = frozenset({Condition.SERVING, Condition.SICK})
RESIDENT = frozenset({Condition.LOADING, *LOADED})


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """One model on one node."""

    #: What it takes there when loaded; None where it does not fit, or nobody knows.
    size: int | None
    condition: Condition = Condition.ABSENT
    #: Since when it is in this condition. A failure with another time is another failure.
    since: float = 0.0
    #: While failed: the node itself does not try again before; and why, in its own words.
    failed_until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as its newest report and its link tell."""

    node_id: NodeId
    owner: str
    #: The network of its address, and the name of its machine there.
    network: str
    host: str
    linked: bool
    #: Since when it is linked, or is not.
    since: float
    #: Bytes that models may take.
    memory: int
    engines: Mapping[str, EngineFacts] = field(default_factory=dict)
    #: Models that its owner allows; empty: whatever fits.
    allowed: frozenset[str] = frozenset()
    #: When its window closes; None while nothing is to close.
    closes_at: float | None = None
    #: Degrees below its cap; None where nobody knows.
    margin: float | None = None
    draining: bool = False
    may_scale_to_zero: bool = False
    #: The newest assignment that `engines` is the outcome of; 0 before the first.
    revision: int = 0

    def belongs(self) -> tuple[object, ...]:
        """What makes it a candidate, and of which domains."""
        sizes = [(model, engine.size) for model, engine in self.engines.items()]
        where = self.owner, self.network, self.host
        return self.linked, where, self.allowed, self.memory, self.may_scale_to_zero, sizes

    def shows(self) -> tuple[object, ...]:
        """What something may follow from at once. The rest is seen when its models are looked at anyway."""
        engines = [(model, engine.condition, engine.since, engine.size) for model, engine in self.engines.items()]
        return self.linked, self.draining, self.allowed, self.memory, self.revision, self.owner, engines


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model, over all nodes."""

    model: str
    #: When it was last asked for; its first sight counts as one.
    asked_at: float
    #: Requests that nodes work on, and those that wait for one.
    under_way: int = 0
    waiting: int = 0
    #: How long loading it takes, as a running mean.
    load_seconds: float = LOAD_SECONDS


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one node should have loaded, by name. `revision` grows with each change and only then."""

    node_id: NodeId
    revision: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redundancy:
    """How many failures apart one model is from not being served."""

    #: Distinct failure domains of the nodes that serve it and stay.
    effective_n: int
    #: How many there should be, and how many there could be with the nodes and the memory that are there.
    wanted_n: int
    feasible_n: int
    degraded: bool
    #: Nobody asks, and it need not be loaded anywhere: it is loaded again when somebody does.
    idle: bool
    #: What a domain is here: owner, network or host.
    domain: str
    #: Replicas that serve and stay, and how many the demand asks for.
    serving: int
    target: int
