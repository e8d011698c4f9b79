"""One node as the reconciler keeps it: its facts, what it was told to load, and whether it is about to leave.

    absent --assign--> coming --serving--> serving <--a token came, or requests fail--> sick
                          |                   |                                           |
                          |                   +--drop----------> unloading <---------drop-+
                          |                   |                      +--told to be gone--> absent
                          +---- failed -------+--> absent

Where it failed, or was sick when it was dropped, the node is not asked for it again for a while.

Memory is counted until the node itself has told that a model is gone: what was dropped a moment ago is still there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from shrk_coordinator.state.placement import HEAT_MARGIN
from shrk_coordinator.state.replicas.domains import Domains, domains_of
from shrk_coordinator.state.replicas.facts import RESIDENT, Assignment, Condition, EngineFacts, NodeFacts
from shrk_coordinator.state.replicas.failures import Failures

#: Below its cap by less than HEAT_MARGIN a node leaves for heat, as it gets no new work from there on; it is back when
#: it is cooler by this: a fan that comes and goes must not move models.
COOL_DEGREES = 5.0
#: A link that was lost is dialled anew within a second or two; models do not move for less than this.
BACK_SECONDS = 10.0
#: A handover begins this many load times, and so much, before a window closes: loads take longer than they usually do,
#: and both ends hear of things some seconds late.
HANDOVER_LOADS = 1.5
HANDOVER_SECONDS = 60.0
#: A replica that does not serve after so many load times, and so much, is not coming.
OVERDUE_LOADS = 2.0
OVERDUE_SECONDS = 60.0
#: Changes an hour that a node is asked to make for the sake of others or of order. Each costs minutes of its GPU.
CHANGES_MAX = 6
CHANGES_SECONDS = 3_600.0


def horizon(load_seconds: float) -> float:
    """How long before a node leaves its replica is handed over."""
    return HANDOVER_LOADS * load_seconds + HANDOVER_SECONDS


@dataclass(slots=True)
class Place:
    """One node."""

    facts: NodeFacts
    domains: Domains
    #: Models it should have loaded, and since when it should.
    assigned: dict[str, float] = field(default_factory=dict)
    revision: int = 0
    #: Models that it was told to unload, by the revision that told so, until it has.
    unloading: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Failures] = field(default_factory=dict)
    hot: bool = False
    #: Bytes that are not taken by anything.
    free: int = 0
    #: When it was last asked to change something that nothing forced.
    _changes: deque[float] = field(default_factory=lambda: deque(maxlen=CHANGES_MAX))

    @classmethod
    def of(cls, facts: NodeFacts) -> Place:
        """A node that has not been seen before."""
        place = cls(facts, domains_of(facts), revision=facts.revision)
        place.take(facts)
        return place

    def take(self, facts: NodeFacts) -> None:
        """Its newest facts."""
        self.facts, self.domains = facts, domains_of(facts)
        if facts.margin is not None:
            self.hot = facts.margin < (COOL_DEGREES if self.hot else HEAT_MARGIN)
        for model, revision in list(self.unloading.items()):
            if facts.linked and facts.revision >= revision and self.condition(model) not in RESIDENT:
                del self.unloading[model]
        self.count_free()

    def adopt(self, now: float) -> bool:
        """Keep what it has loaded and may, as far as it fits; whether that changes what it should have."""
        before = set(self.assigned)
        for model, engine in sorted(self.facts.engines.items()):
            if engine.condition in RESIDENT and model not in self.assigned and self.permits(model):
                self.assigned[model] = now
                self.unloading.pop(model, None)
        self.count_free()
        return set(self.assigned) != before

    def engine(self, model: str) -> EngineFacts | None:
        """What it told of a model."""
        return self.facts.engines.get(model)

    def condition(self, model: str) -> Condition:
        """How a model's engine is here."""
        engine = self.facts.engines.get(model)
        return engine.condition if engine else Condition.ABSENT

    def size(self, model: str) -> int:
        """Bytes that it takes here; 0 where nobody knows."""
        engine = self.facts.engines.get(model)
        return (engine.size or 0) if engine else 0

    def permits(self, model: str) -> bool:
        """Whether owner and memory allow it, whatever else is loaded."""
        facts = self.facts
        engine = facts.engines.get(model)
        allowed = not facts.allowed or model in facts.allowed
        return allowed and engine is not None and engine.size is not None and engine.size <= facts.memory

    def count_free(self) -> None:
        """Count the bytes that are left."""
        taken = self.assigned.keys() | self.unloading.keys()
        taken |= {model for model, engine in self.facts.engines.items() if engine.condition in RESIDENT}
        self.free = self.facts.memory - sum(map(self.size, taken))

    def leaves(self, now: float, load_seconds: float) -> bool:
        """Whether it is about to go, or has gone."""
        facts = self.facts
        if facts.draining or self.hot:
            return True
        if not facts.linked:
            return now - facts.since >= BACK_SECONDS
        return facts.closes_at is not None and facts.closes_at - now <= horizon(load_seconds)

    def open_to(self, now: float, model: str, load_seconds: float) -> bool:
        """Whether it could be asked to load this model, but for room."""
        if model in self.assigned or model in self.unloading or not self.facts.linked:
            return False
        if self.condition(model) is Condition.SICK:
            return False  # It was loaded without having been asked for, and is no use.
        failures = self.failures.get(model)
        return (failures is None or failures.until <= now) and not self.leaves(now, load_seconds)

    def overdue(self, now: float, model: str, load_seconds: float) -> bool:
        """Whether a replica that should have come by now has not."""
        return now - self.assigned[model] >= OVERDUE_LOADS * load_seconds + OVERDUE_SECONDS

    def failed(self, model: str) -> Failures:
        """The record of failures of a model here."""
        return self.failures.setdefault(model, Failures())

    def assign(self, now: float, model: str) -> None:
        """It should load a model."""
        self.assigned[model] = now
        self.revision += 1
        self.count_free()

    def drop(self, model: str) -> None:
        """It should unload a model."""
        del self.assigned[model]
        self.revision += 1
        self.unloading[model] = self.revision
        self.count_free()

    def may_change(self, now: float) -> bool:
        """Whether it may be asked to change something that nothing forces."""
        return len(self._changes) < CHANGES_MAX or now - self._changes[0] >= CHANGES_SECONDS

    def changed(self, now: float) -> None:
        """It was asked to."""
        self._changes.append(now)

    def assignment(self) -> Assignment:
        """What it should have loaded."""
        return Assignment(self.facts.node_id, self.revision, tuple(sorted(self.assigned)))
