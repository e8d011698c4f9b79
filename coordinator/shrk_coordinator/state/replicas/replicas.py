"""One model as the reconciler keeps it: where it is assigned, where it could be, and how its replicas stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.replicas.demand import REPLICAS_WANTED, Appetite
from shrk_coordinator.state.replicas.domains import Level, Spread, Tally
from shrk_coordinator.state.replicas.facts import RESIDENT, Condition, ModelFacts, Redundancy
from shrk_coordinator.state.replicas.places import COOL_DEGREES, Place

#: Candidates that are looked at before the best of them is taken, where it belongs to another owner than all replicas:
#: among thousands there is no much better one.
LOOKED_AT_MIN = 256
#: A node that has just come is no reason to move anything: many go again at once.
STEADY_SECONDS = 120.0
#: A node that stays for so long is as good as one that never closes.
STAYS_SECONDS = 3_600.0
#: Sick replicas of one model that are replaced within an hour. Three nodes that fall sick together, by one owner's
#: driver or one cut cable, are replaced at once. Where those that come fall sick as well it is the model, and would be
#: so on every node: it may not take one after the other, with the minutes of loading that each costs.
SICK_REPLACED_MAX = 3
SICK_REPLACED_SECONDS = 3_600.0

#: Failures, what it adds to the domains, and the rest in the order of its weight.
Rank = tuple[int, Spread, bool, bool, bool, bool, int, NodeId]
#: Better than this, in the first two: it has not failed, and belongs to an owner whom no replica belongs to.
_FAIR = (0, (-1, 1, 1))


@dataclass(slots=True)
class Standing:
    """One model's replicas at one moment, each in one of five."""

    serving: list[Place] = field(default_factory=list)
    #: Asked to load it, and expected to.
    coming: list[Place] = field(default_factory=list)
    #: Asked to load it, and not expected any more. One that still loads is let go on: downloads take hours.
    late: list[Place] = field(default_factory=list)
    #: Requests fail there; those that have been so the longest first.
    sick: list[Place] = field(default_factory=list)
    #: About to leave or gone, or not to keep an idle model.
    going: list[Place] = field(default_factory=list)
    #: The domains of those that stay.
    tally: Tally = field(default_factory=Tally)

    @property
    def count(self) -> int:
        """Replicas that serve and stay, or will."""
        return len(self.serving) + len(self.coming)

    def add(self, place: Place) -> None:
        """It was asked to load the model."""
        self.coming.append(place)
        self.tally.add(place.domains)


@dataclass(slots=True)
class Replicas:
    """One model."""

    facts: ModelFacts
    appetite: Appetite = field(default_factory=Appetite)
    #: Nodes that should have it, in the order in which they were asked.
    places: dict[NodeId, Place] = field(default_factory=dict)
    #: Linked nodes that may have it, whatever else they have.
    candidates: dict[NodeId, Place] = field(default_factory=dict)
    #: The domains of all of them, and of those that keep idle models; and what was counted for each.
    _all: Tally = field(default_factory=Tally)
    _keeping: Tally = field(default_factory=Tally)
    _counted: dict[NodeId, tuple[Place, bool, tuple[str, str, str]]] = field(default_factory=dict)
    #: It has fewer replicas than wanted, or less apart, and nobody could be asked when it was last looked at.
    short: bool = False
    #: Since when it has had more replicas than it should.
    surplus_since: float | None = None
    redundancy: Redundancy | None = None
    #: When sick replicas were replaced.
    _replaced: deque[float] = field(default_factory=lambda: deque(maxlen=SICK_REPLACED_MAX))

    @property
    def name(self) -> str:
        """What it is called."""
        return self.facts.model

    def candidate(self, place: Place) -> None:
        """A node's facts are new: is it a candidate?"""
        node_id = place.facts.node_id
        if (was := self._counted.pop(node_id, None)) is not None:
            _, keeps, domains = was
            self._all.remove(domains)
            if keeps:
                self._keeping.remove(domains)
        if not (place.facts.linked and place.permits(self.name)):
            self.candidates.pop(node_id, None)
            return
        keeps = not place.facts.may_scale_to_zero
        self.candidates[node_id] = place
        self._counted[node_id] = place, keeps, place.domains
        self._all.add(place.domains)
        if keeps:
            self._keeping.add(place.domains)

    @property
    def eligible(self) -> Tally:
        """The domains that it could be spread over, memory aside."""
        return self._keeping if self.appetite.idle else self._all

    @property
    def wanted(self) -> int:
        """Replicas that it must have: what demand asks for beyond three is a wish."""
        if self.appetite.idle:
            return min(REPLICAS_WANTED, self.eligible.nodes)
        return min(REPLICAS_WANTED, self.appetite.target)

    @property
    def target(self) -> int:
        """Replicas that it should have."""
        return self.wanted if self.appetite.idle else self.appetite.target

    @property
    def level(self) -> Level:
        """What counts as a failure domain for it."""
        return self.eligible.level(max(1, self.wanted))

    def takes(self, place: Place) -> bool:
        """Whether its idleness lets it be there."""
        return not (self.appetite.idle and place.facts.may_scale_to_zero)

    def standing(self, now: float) -> Standing:
        """How its replicas stand."""
        standing = Standing()
        load_seconds = self.facts.load_seconds
        for place in self.places.values():
            if place.leaves(now, load_seconds) or not self.takes(place):
                standing.going.append(place)
                continue
            condition = place.condition(self.name) if place.facts.linked else Condition.ABSENT
            if condition is Condition.SICK:
                standing.sick.append(place)
                continue
            serves = condition is Condition.SERVING
            if not serves and place.facts.linked and place.overdue(now, self.name, load_seconds):
                standing.late.append(place)
                continue
            (standing.serving if serves else standing.coming).append(place)
            standing.tally.add(place.domains)
        standing.sick.sort(key=lambda place: (place.facts.engines[self.name].since, place.facts.node_id))
        return standing

    def replaceable(self, now: float) -> int:
        """How many sick replicas may be replaced now."""
        return SICK_REPLACED_MAX - sum(now - at < SICK_REPLACED_SECONDS for at in self._replaced)

    def held(self, now: float, standing: Standing) -> int:
        """How many sick replicas keep their places to themselves, since no more may be replaced now."""
        doubled = max(0, standing.count + len(standing.sick) - self.wanted)
        return max(0, len(standing.sick) - doubled - self.replaceable(now)) if standing.sick else 0

    def given(self, now: float, standing: Standing, *, taken: bool) -> None:
        """It was given a node that it must have, which was free or `taken` from others. While some are sick, whoever
        comes beside as many as there should be, or for whom others give way, comes in the place of a sick one."""
        if standing.sick and (taken or standing.count + len(standing.sick) > self.wanted):
            self._replaced.append(now)

    def spare(self, standing: Standing) -> list[Place]:
        """Sick replicas that are not needed, not even should they become well: others serve in their place."""
        return standing.sick[: max(0, len(standing.serving) + len(standing.sick) - self.wanted)]

    def open_places(self, now: float) -> Iterator[Place]:
        """Candidates that could be asked, but for room."""
        for place in self.candidates.values():
            if self.takes(place) and place.open_to(now, self.name, self.facts.load_seconds):
                yield place

    def rank(self, now: float, place: Place, tally: Tally) -> Rank:
        """The smaller, the better a node is for it beside replicas of these domains.

        Whoever failed to load it comes last: a node of another owner is worth nothing while it does not serve.
        """
        facts, engine = place.facts, place.facts.engines[self.name]
        failures = place.failures.get(self.name)
        owner, network, host = self.gain(tally, place)
        closes_in = STAYS_SECONDS if facts.closes_at is None else facts.closes_at - now
        return (
            failures.recent(now) if failures else 0,
            (-owner, -network, -host),
            engine.condition not in RESIDENT,
            closes_in < STAYS_SECONDS,
            now - facts.since < STEADY_SECONDS,
            facts.margin is not None and facts.margin < COOL_DEGREES,
            -place.free,
            facts.node_id,
        )

    def best(self, now: float, tally: Tally, *, steady: bool = False, new: Level | None = None) -> Place | None:
        """The node with room that is best beside these domains; `steady`: not one that has just come; `new`: only one
        of a domain of this kind that none of them belongs to."""
        found: Place | None = None
        best: Rank | None = None
        for looked_at, place in enumerate(self.open_places(now)):
            if looked_at >= LOOKED_AT_MIN and best is not None and best[:2] < _FAIR:
                break
            if place.free < self._room_for(place) or (steady and now - place.facts.since < STEADY_SECONDS):
                continue
            if new is not None and not self.gain(tally, place)[new]:
                continue
            rank = self.rank(now, place, tally)
            if best is None or rank < best:
                found, best = place, rank
        return found

    def _room_for(self, place: Place) -> int:
        # What is loaded without having been asked for takes its room already.
        engine = place.facts.engines[self.name]
        return 0 if engine.condition in RESIDENT else place.size(self.name)

    @staticmethod
    def gain(tally: Tally, place: Place) -> Spread:
        """What a node adds."""
        return tally.gain(place.domains)

    def judge(self, standing: Standing) -> Redundancy:
        """How redundant it is."""
        feasible = standing.tally.count(self.level) if self.short else self.wanted
        level, wanted = self.level, self.wanted
        effective = Tally(place.domains for place in standing.serving).count(level)
        return Redundancy(
            effective_n=min(effective, max(wanted, self.target)),
            wanted_n=wanted,
            feasible_n=max(effective, min(wanted, feasible)),
            degraded=effective < wanted,
            idle=wanted == 0 and bool(self.candidates),
            domain=level.word,
            serving=len(standing.serving),
            target=self.target,
        )
