"""The reconciler: facts of nodes and models in, once a second a few assignments out.

    node(), model(), retire()          run(): of the models that something happened to
      take in facts, at once             1. look: who serves, comes, leaves; how many there should be
      drop what cannot stay:             2. fill: whoever has fewest gets the next node, spread over owners, networks
      not allowed, failed, too large        and hosts; where there is no room, a model that has two more makes some
                                         3. tidy: let go who left or is sick and was replaced, or is too much

What must be is done at once: three replicas, and a replacement before a node leaves. What would only be better waits
until it has been so for a while, and no node is asked for more than CHANGES_MAX of that in an hour.

A node is told a whole set, and the set fits into its memory; it unloads what is not in it before it loads what is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.replicas.demand import IDLE_SECONDS
from shrk_coordinator.state.replicas.domains import Level
from shrk_coordinator.state.replicas.facts import LOADED, Assignment, Condition, ModelFacts, NodeFacts, Redundancy
from shrk_coordinator.state.replicas.places import Place
from shrk_coordinator.state.replicas.reasons import NodeName, why_not_there, why_short
from shrk_coordinator.state.replicas.replicas import Rank, Replicas, Standing

#: A coordinator that has just started knows few of its nodes: until they are back, no model is given a second replica.
START_SECONDS = 30.0
#: Every model is looked at this often, whatever happens: windows come closer and backoffs end without a word.
LOOK_SECONDS = 10.0
#: A model with more replicas than this does not notice one, and is not looked at sooner for it: counting thousands
#: each second would hold up everybody.
MANY_MIN = 32
#: What is too much stays for this long: a node that was replaced while it was hot, or away, may need its models yet.
SURPLUS_SECONDS = 600.0
#: A node that has been away for longer is told anew what to load when it is back.
FORGET_SECONDS = 3_600.0
#: Replicas beyond three that are given in one run: each costs a look at many nodes, and the next run is a second away.
EXTRAS_MAX = 4


class Reconciler:
    """Decides which node should load which model."""

    replicas: type[Replicas] = Replicas

    def __init__(self, now: float) -> None:
        self._began = now
        self._places: dict[NodeId, Place] = {}
        self._models: dict[str, Replicas] = {}
        #: Models that something happened to, and when each is to be looked at anyway.
        self._due: dict[str, None] = {}
        self._look_at: dict[str, float] = {}
        #: Models that the last run did not finish.
        self._again: dict[str, None] = {}
        #: Nodes whose assignment is new since it was last told.
        self._changed: dict[NodeId, None] = {}
        #: Within one run: models that others took a node from, and how the replicas of each model stand.
        self._gave_way: set[str] = set()
        self._standings: dict[str, Standing] = {}

    # --- what is told ---------------------------------------------------------------------------------

    def model(self, now: float, facts: ModelFacts) -> None:
        """One model's facts."""
        known = self._models.get(facts.model)
        if known is None:
            known = self._models[facts.model] = self.replicas(facts)
            for place in self._places.values():
                known.candidate(place)
                if facts.model in place.assigned:
                    known.places[place.facts.node_id] = place
            self._due[facts.model] = None
        if facts.waiting or (known.appetite.idle and now - facts.asked_at < IDLE_SECONDS):
            self._due[facts.model] = None
        known.facts = facts

    def retire(self, model: str) -> None:
        """A model is served no more: every node unloads it."""
        known = self._models.pop(model, None)
        for place in known.places.values() if known else ():
            place.drop(model)
            self._changed[place.facts.node_id] = None
        for waiting in (self._due, self._again, self._look_at):
            waiting.pop(model, None)

    def node(self, now: float, facts: NodeFacts) -> None:
        """One node's facts; at least whenever its link opens or closes, and with every report."""
        place = self._places.get(facts.node_id)
        if place is None:
            place = self._places[facts.node_id] = Place.of(facts)
            self._meet(now, place)
            self._reindex(place, facts.engines)
        else:
            old, was_hot = place.facts, place.hot
            for model in place.assigned:
                # Whatever had been loaded is given its time again.
                if place.condition(model) in LOADED:
                    place.assigned[model] = now
            place.take(facts)
            if facts.linked and not old.linked:
                self._meet(now, place)
            if old.belongs() != facts.belongs():
                self._reindex(place, old.engines.keys() | facts.engines.keys())
            if old.shows() == facts.shows() and place.hot == was_hot:
                return
        if facts.linked:
            self._drop_what_cannot_stay(now, place)
        self._due.update(dict.fromkeys(model for model in place.assigned if model in self._models))
        self._wake_short(now, place)

    def _meet(self, now: float, place: Place) -> None:
        """It is linked, whether new or back: what it has loaded stays loaded."""
        adopted = place.adopt(now)
        if place.revision <= place.facts.revision or adopted:
            place.revision = max(place.revision, place.facts.revision) + 1
        for model in place.assigned:
            if model in self._models:
                self._models[model].places[place.facts.node_id] = place
        self._changed[place.facts.node_id] = None

    def _reindex(self, place: Place, models: Iterable[str]) -> None:
        for model in models:
            if (known := self._models.get(model)) is not None:
                known.candidate(place)

    def _wake_short(self, now: float, place: Place) -> None:
        """A model that had nowhere to go may have found it."""
        for model in place.facts.engines:
            known = self._models.get(model)
            if known is None or not known.short or not place.permits(model):
                continue
            if place.open_to(now, model, known.facts.load_seconds):
                self._due[model] = None

    def _drop_what_cannot_stay(self, now: float, place: Place) -> None:
        for model in sorted(place.assigned):
            engine = place.engine(model)
            failed = engine is not None and engine.condition is Condition.FAILED
            if failed and engine is not None:
                failed = place.failed(model).told(now, engine.since, engine.failed_until)
            if failed or not place.permits(model):
                self._drop(now, place, model)
        by_worth = sorted(place.assigned, key=lambda m: (place.condition(m) is Condition.SERVING, -self._count(m), m))
        for model in by_worth:
            if sum(map(place.size, place.assigned)) <= place.facts.memory:
                break
            self._drop(now, place, model)

    def _count(self, model: str) -> int:
        known = self._models.get(model)
        return len(known.places) if known else 0

    # --- what is decided ------------------------------------------------------------------------------

    def run(self, now: float) -> list[Assignment]:
        """Decide; the assignments that are new since the last run, by node."""
        few = [model for model in self._due if len(self._models[model].places) <= MANY_MIN]
        late = [model for model in self._models if self._look_at.get(model, now) <= now]
        looked_at = [self._models[model] for model in sorted({*few, *late, *self._again})]
        self._due, self._again, self._gave_way = {}, {}, set()
        self._standings = {}
        for known in looked_at:
            self._look(now, known)
        self._fill(now, looked_at)
        for known in looked_at:
            self._tidy(now, known)
            self._look_at[known.name] = now + self._pause(known.name)
        changed = sorted(self._changed)
        self._changed = {}
        return [self._places[node_id].assignment() for node_id in changed]

    def _pause(self, model: str) -> float:
        """Until a model is looked at anyway. The first time differs, so that all are never looked at in one run."""
        if model in self._look_at:
            return LOOK_SECONDS
        return 1.0 + len(self._look_at) % LOOK_SECONDS

    def assignment(self, node_id: NodeId) -> Assignment | None:
        """What a node should have loaded; None where it is not known."""
        place = self._places.get(node_id)
        return place.assignment() if place else None

    def redundancy(self, model: str) -> Redundancy | None:
        """How redundant a model is, as of when it was last looked at; None where it is not known."""
        known = self._models.get(model)
        return known.redundancy if known else None

    def _standing(self, now: float, known: Replicas) -> Standing:
        standing = self._standings.get(known.name)
        if standing is None:
            standing = self._standings[known.name] = known.standing(now)
        return standing

    def _look(self, now: float, known: Replicas) -> None:
        standing = self._standing(now, known)
        late = [p for p in standing.late if p.condition(known.name) is not Condition.LOADING]
        for place in standing.going:
            place.assigned[known.name] = now  # Should it stay after all, it has its time from then on.
        for place in late:
            if place.facts.linked:
                place.failed(known.name).happened(now)
                self._drop(now, place, known.name)
        was_idle = known.appetite.idle
        known.appetite.look(now, known.facts, len(standing.serving), len(known.places))
        if late or known.appetite.idle is not was_idle:
            self._standings[known.name] = known.standing(now)

    def _fill(self, now: float, models: list[Replicas]) -> None:
        """Give nodes to those that have too few, whoever has fewest first."""
        queue: list[tuple[int, float, str]] = []
        for known in models:
            known.short = False
            heapq.heappush(queue, self._turn(now, known))
        extras = 0
        while queue:
            known = self._models[heapq.heappop(queue)[2]]
            standing = self._standing(now, known)
            if standing.count + known.held(now, standing) < self._wanted(now, known):
                free = self._place(now, known, standing)
                if not (free or self._make_room(now, known, standing)):
                    known.short = True
                    continue
                known.given(now, standing, taken=not free)
            elif standing.count + len(standing.sick) < known.target and self._settled(now):
                if extras >= EXTRAS_MAX:
                    self._again[known.name] = None
                    continue
                extras += 1
                if not self._place(now, known, standing, forced=False):
                    known.appetite.gave_up(now, standing.count)
                    continue
            else:
                known.short = standing.count < self._wanted(now, known)
                continue
            heapq.heappush(queue, self._turn(now, known))

    def _turn(self, now: float, known: Replicas) -> tuple[int, float, str]:
        """When it is its turn: by how many it has of what it must have, then by how many wait for each replica."""
        standing = self._standing(now, known)
        return min(standing.count, known.wanted), -known.facts.waiting / (standing.count or 1), known.name

    def _settled(self, now: float) -> bool:
        return now - self._began >= START_SECONDS

    def _wanted(self, now: float, known: Replicas) -> int:
        return known.wanted if self._settled(now) else min(1, known.wanted)

    def _place(self, now: float, known: Replicas, standing: Standing, *, forced: bool = True) -> bool:
        """Ask the best node that has room; whether there is one."""
        place = known.best(now, standing.tally, steady=not forced)
        if place is None or not (forced or place.may_change(now)):
            return False
        self._assign(now, known, standing, place, forced=forced)
        return True

    def _make_room(self, now: float, known: Replicas, standing: Standing) -> bool:
        """Where no node has room, models that have two replicas more give way; whether they can."""
        # Nobody asks for it, its own nodes are not back yet, or it is no use: it takes what is free. And what one model
        # takes must not go round among the others: the next run is a second away.
        waits = known.appetite.idle or not self._settled(now) or known.name in self._gave_way
        if waits or (standing.sick and not known.replaceable(now)):
            return False
        best: tuple[tuple[int, Rank], Place, list[str]] | None = None
        for place in known.open_places(now):
            missing = sum(map(place.size, place.assigned)) + place.size(known.name) - place.facts.memory
            # Where nothing is missing, what is there is being unloaded, and comes free by itself.
            victims = self._victims(now, place, missing, standing) if missing > 0 else None
            if victims:
                key = len(victims), known.rank(now, place, standing.tally)
                if best is None or key < best[0]:
                    best = key, place, victims
        if best is None:
            return False
        _, place, victims = best
        for model in victims:
            self._gave_way.add(model)
            self._drop(now, place, model)
            self._standings[model] = self._models[model].standing(now)
        self._assign(now, known, standing, place, forced=True)
        return True

    def _victims(self, now: float, place: Place, missing: int, taker: Standing) -> list[str] | None:
        """Models to unload there for so many bytes, each with two replicas more; None where that is too few.

        Sick ones of whoever takes count as well, and of whoever gives where it is a sick one: whoever has none is not
        kept from a node by several that are no use, and what fails everywhere takes from nobody.
        """
        rich: list[tuple[int, str]] = []
        for model in place.assigned:
            if (other := self._models.get(model)) is not None:
                standing, condition = self._standing(now, other), place.condition(model)
                has = len(standing.serving) + (len(standing.sick) if condition is Condition.SICK else 0)
                if condition is not Condition.SERVING:  # Who was lost may be back, and is nobody to count on now.
                    has += sum(other.facts.linked for other in standing.coming)
                if has - taker.count - len(taker.sick) >= 2:
                    rich.append((-has, model))
        victims = []
        for _, model in sorted(rich):
            if missing <= 0:
                break
            victims.append(model)
            missing -= place.size(model)
        return victims if missing <= 0 else None

    def _tidy(self, now: float, known: Replicas) -> None:
        standing = self._standing(now, known)
        self._let_go(now, known, standing)
        if len(standing.serving) <= known.target:
            known.surplus_since = None
            if self._settled(now) and not (standing.coming or known.short) and len(standing.serving) == known.target:
                self._spread(now, known, standing)
        elif known.surplus_since is None:
            known.surplus_since = now
        elif now - known.surplus_since >= SURPLUS_SECONDS:
            self._drop_one_too_many(now, known, standing)
        known.redundancy = known.judge(standing)

    def _let_go(self, now: float, known: Replicas, standing: Standing) -> None:
        """Those that leave or are sick go once they are replaced; what idles may not wait for what cannot be."""
        replaced = self._replaced(known, standing)
        for place in list(standing.going):
            facts = place.facts
            idles = not known.takes(place) and not standing.coming
            if replaced or idles or (not facts.linked and now - facts.since >= FORGET_SECONDS):
                self._drop(now, place, known.name)
                standing.going.remove(place)
        for place in known.spare(standing):
            self._drop(now, place, known.name)
            standing.sick.remove(place)

    def _replaced(self, known: Replicas, standing: Standing) -> bool:
        """Whether as many serve as must, without those that leave."""
        return len(standing.serving) >= known.wanted

    def _drop_one_too_many(self, now: float, known: Replicas, standing: Standing) -> None:
        tally, most = standing.tally, known.wanted
        for place in sorted(
            (place for place in standing.serving if place.may_change(now)),
            key=lambda place: (tally.spread_without(place.domains, most), place.facts.may_scale_to_zero, -place.free),
            reverse=True,
        )[:1]:
            self._drop(now, place, known.name)
            place.changed(now)
            standing.serving.remove(place)
            tally.remove(place.domains)
            known.surplus_since = now

    def _spread(self, now: float, known: Replicas, standing: Standing) -> None:
        """Load one more where that lets another go and leaves them further apart."""
        tally, most = standing.tally, known.wanted
        for level in Level:
            if tally.count(level) >= min(most, known.eligible.count(level)):
                continue
            place = known.best(now, tally, steady=True, new=level)
            if place is None or not place.may_change(now):
                continue
            before = tally.spread(most)
            tally.add(place.domains)
            after = max(tally.spread_without(other.domains, most) for other in standing.serving)
            tally.remove(place.domains)
            if after > before:
                self._assign(now, known, standing, place, forced=False)
                return

    def why_short(self, now: float, model: str, name: NodeName) -> str:
        """What keeps a model from having what it should have, in words; empty where nothing does."""
        known = self._models.get(model)
        return why_short(now, known, self._began + START_SECONDS - now, name) if known else ""

    def why_not_there(self, now: float, model: str, node_id: NodeId) -> str:
        """Why a node is not to load a model, in words; empty where it is, or either is not known."""
        known, place = self._models.get(model), self._places.get(node_id)
        return why_not_there(now, known, place, self._began + START_SECONDS - now) if known and place else ""

    # --- what is done ---------------------------------------------------------------------------------

    def _assign(self, now: float, known: Replicas, standing: Standing, place: Place, *, forced: bool) -> None:
        place.assign(now, known.name)
        if not forced:
            place.changed(now)
        known.places[place.facts.node_id] = place
        standing.add(place)
        self._changed[place.facts.node_id] = None

    def _drop(self, now: float, place: Place, model: str) -> None:
        if place.condition(model) is Condition.SICK:
            place.failed(model).happened(now, served=True)  # What is let go is not given back at once.
        place.drop(model)
        self._changed[place.facts.node_id] = None
        if (known := self._models.get(model)) is not None:
            known.places.pop(place.facts.node_id, None)
            self._due[model] = None
