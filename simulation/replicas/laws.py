"""What must hold, judged by what the coordinator had been told and by what nodes truly do, not by how it decides.

* An assignment fits into its node's memory and has only what the owner allows.
* A model has min(3, feasible) replicas that serve and stay, or gets them within a load time and `MARGIN_SECONDS` of the
  last cause that the coordinator knows of; they then belong to as many owners (else networks) as feasible.
* Nothing that serves is unloaded while fewer than three others serve, unless terms, memory or idleness ask for it, or
  a model with fewer replicas takes its place.
* What is sick counts for nothing, is let go only where three others are there, and makes a model ask for few nodes an
  hour: else a bad model would go through them all.
* What a window or heat announced in time takes nothing below min(3, feasible).
* Where nothing happens to it a node is asked for few changes an hour, and once all is quiet nothing goes to and fro.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrk_coordinator.state.placement import HEAT_MARGIN
from shrk_coordinator.state.replicas.demand import IDLE_SECONDS, REPLICAS_WANTED
from shrk_coordinator.state.replicas.facts import RESIDENT, Assignment, Condition, ModelFacts, NodeFacts
from shrk_coordinator.state.replicas.failures import RETRY_SECONDS_MAX
from shrk_coordinator.state.replicas.places import CHANGES_MAX, COOL_DEGREES, horizon
from shrk_coordinator.state.replicas.reconciler import SURPLUS_SECONDS, Reconciler
from shrk_coordinator.state.replicas.replicas import SICK_REPLACED_MAX, STEADY_SECONDS
from simulation.clock import BEGINNING, Clock
from simulation.replicas.node import LOAD_FACTORS, Node

#: Beside the load itself: 30 s in which a coordinator that has just started waits for its nodes, 10 s that a lost link
#: is given, 10 s to the next look, 10 s to the next run and 5 s to the next report, 1 s on the way, 10 s to unload.
MARGIN_SECONDS = 85.0
#: For what was announced, the link and the start do not count.
ANNOUNCED_SECONDS = 45.0
#: What is only better waits until what is too much has been dropped, which may have come late, and for a node to have
#: stayed a while.
SPREAD_SECONDS = 2 * SURPLUS_SECONDS + STEADY_SECONDS + 120.0
#: One cause takes a model from a node and gives it back, at the most; and its consequences last beyond the hour.
CHANGES_PER_CAUSE = 2
CAUSES_SECONDS = 5_400.0
HOUR = 3_600.0
#: A crowd asks for more nodes than three, and may have got the last of them so long ago.
QUEUED_SECONDS = 2 * HOUR
#: Behind the last cause all surplus has been dropped by then, and everything is where it will stay.
SETTLED_SECONDS = 1_800.0


@dataclass(slots=True)
class Watch:
    """What is remembered of one model."""

    #: Since when it has had too few replicas, and since when they could be further apart.
    short_since: float | None = None
    close_since: float | None = None
    #: The last cause for which it may have too few.
    cause_at: float = 0.0
    idle: bool = False
    holders: set[str] = field(default_factory=set)
    possible: int = 0
    owners_possible: int = 0
    #: When it was given a node while another was sick, and when beside three or more; when requests last queued for it.
    beside_sick: deque[float] = field(default_factory=lambda: deque(maxlen=SICK_REPLACED_MAX))
    for_sick: deque[float] = field(default_factory=lambda: deque(maxlen=SICK_REPLACED_MAX + 1))
    queued_at: float = -math.inf


class Laws:
    """One run's."""

    def __init__(self, reconciler: Reconciler, clock: Clock, nodes: Mapping[str, Node]) -> None:
        self._reconciler, self._clock, self._nodes = reconciler, clock, nodes
        self.known: dict[str, NodeFacts] = {}
        self.models: dict[str, ModelFacts] = {}
        #: What each node should have, and what it should have before the newest run.
        self._told: dict[str, set[str]] = {}
        self._told_before: dict[str, set[str]] = {}
        self._revisions: dict[str, int] = {}
        self._hot: set[str] = set()
        self._failed_at: dict[tuple[str, str], float] = {}
        self._leaves_since: dict[tuple[str, str], float] = {}
        self._watches: dict[str, Watch] = {}
        self._changed_at: dict[str, deque[float]] = {}
        self._caused_at: deque[float] = deque()
        self._given_at: dict[tuple[str, str], float] = {}
        self._taken_at: dict[tuple[str, str], float] = {}
        self.changes = self.changes_per_hour_max = self.causes = self.announced = 0

    # --- what happened --------------------------------------------------------------------------------

    def cause(self) -> None:
        """Something happened that may force changes."""
        self.causes += 1
        self._caused_at.append(self._clock.now)

    def told(self, facts: NodeFacts) -> None:
        """The coordinator has been told so of a node."""
        node = facts.node_id
        before = self.known.get(node)
        self.known[node] = facts
        for model, engine in facts.engines.items():
            if engine.condition in (Condition.FAILED, Condition.SICK):
                self._failed_at[node, model] = self._clock.now
            if before is None or model not in self._told[node] or engine.condition is Condition.SERVING:
                continue
            was = before.engines[model]
            again = engine.condition is Condition.FAILED and engine.since != was.since
            if again or (was.condition in RESIDENT and engine.condition is not was.condition):
                # It serves no more, or will not after all.
                watch = self._watches.setdefault(model, Watch())
                watch.cause_at = max(watch.cause_at, self._clock.now)
        if facts.margin is not None:
            hot = facts.margin < (COOL_DEGREES if node in self._hot else HEAT_MARGIN)
            (self._hot.add if hot else self._hot.discard)(node)
        if before is None or (facts.linked and not before.linked):
            # What it has loaded is what it should have, until it is told otherwise.
            held = {m for m, e in facts.engines.items() if e.condition in RESIDENT and self._permits(facts, m)}
            self._told[node] = self._told.get(node, set()) | held

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """The reconciler says what some nodes should have, all at once."""
        for model in self.models:
            self._note_idle(model)
        self._told_before = self._told
        self._told = self._told | {one.node_id: set(one.models) for one in assignments}
        for one in assignments:
            self._assigned(one, self._told_before[one.node_id])
        for model in self.models:
            self._given_beside_sick(model)

    def _assigned(self, assignment: Assignment, before: set[str]) -> None:
        node, models = assignment.node_id, set(assignment.models)
        facts = self.known[node]
        assert assignment.revision >= self._revisions.get(node, 0), f"{node}: the revision fell"
        if assignment.revision == self._revisions.get(node):
            assert models == before, f"{node}: another assignment has the same revision"
        self._revisions[node] = assignment.revision
        for model in models:
            assert not facts.linked or self._permits(facts, model), f"{node} may not have {model}"
        size = sum(facts.engines[model].size or 0 for model in models)
        assert not facts.linked or size <= facts.memory, f"{node} is to load {size} bytes, and has {facts.memory}"
        kept = sum(facts.engines[model].size or 0 for model in before)
        for model in sorted(before - models):
            if kept <= facts.memory:
                self._may_be_dropped(facts, model, models - before)
            self._taken_at[node, model] = self._clock.now
        if models != before:
            self._count_change(node)
        for model in models - before:
            self._stays_given(node, model)

    def _may_be_dropped(self, facts: NodeFacts, model: str, instead: Iterable[str]) -> None:
        node, now = facts.node_id, self._clock.now
        condition = facts.engines[model].condition
        if condition not in (Condition.SERVING, Condition.SICK) or not facts.linked:
            return
        if not self._permits(facts, model) or (self._idle(model) and facts.may_scale_to_zero):
            return
        others = [n for n in self._serving(model) if n != node]
        if condition is Condition.SICK:
            others = [n for n, told in self._told.items() if model in told and n != node and self._stays(n, model)]
        if self._idle(model):
            keeping = [n for n in self.known.values() if n.linked and not n.may_scale_to_zero]
            if len(others) >= min(REPLICAS_WANTED, sum(self._permits(n, model) for n in keeping)):
                return
        for other in instead:
            # One run may give it several replicas, one after the other, and take some for others.
            if len(others) > min(self._count(told, other, node) for told in (self._told_before, self._told)):
                return
        assert len(others) >= REPLICAS_WANTED, (
            f"{node} serves {model} and is to unload it at {now - BEGINNING:.0f} s, and only {others} serve it then"
        )

    def _count(self, told: Mapping[str, set[str]], model: str, beside: str) -> int:
        """Nodes that should have a model, may, stay, and neither failed to load it nor are sick."""
        having = (node for node, models in told.items() if model in models and node != beside)
        return sum(self._stays(node, model) and self._of_use(node, model) for node in having)

    def _of_use(self, node: str, model: str) -> bool:
        condition = self.known[node].engines[model].condition
        return self._permits(self.known[node], model) and condition not in (Condition.SICK, Condition.FAILED)

    def _sick(self, node: str, model: str) -> bool:
        return self.known[node].engines[model].condition is Condition.SICK

    def _count_change(self, node: str) -> None:
        now = self._clock.now
        self.changes += 1
        changed = self._changed_at.setdefault(node, deque())
        changed.append(now)
        while changed[0] <= now - HOUR:
            changed.popleft()
        while self._caused_at and self._caused_at[0] <= now - CAUSES_SECONDS:
            self._caused_at.popleft()
        self.changes_per_hour_max = max(self.changes_per_hour_max, len(changed))
        most = CHANGES_MAX + CHANGES_PER_CAUSE * len(self._caused_at)
        assert len(changed) <= most, f"{node}: {len(changed)} changes in an hour, with {len(self._caused_at)} causes"

    def _stays_given(self, node: str, model: str) -> None:
        now = self._clock.now
        taken = self._taken_at.get((node, model), -HOUR)
        failed = self._failed_at.get((node, model), -HOUR)
        caused = self._caused_at[-1] if self._caused_at else -HOUR
        quiet = taken - caused >= SETTLED_SECONDS
        assert not quiet or now - taken >= HOUR or now - failed < 2 * RETRY_SECONDS_MAX, (
            f"{node} unloaded {model} {now - taken:.0f} s ago, though nothing happened, and is to load it again"
        )
        self._given_at[node, model] = now

    def _given_beside_sick(self, model: str) -> None:
        now, watch = self._clock.now, self._watches[model]
        before = {node for node, told in self._told_before.items() if model in told}
        after = {node for node, told in self._told.items() if model in told}
        given = len(after - before)
        if not given or not any(self._sick(n, model) and self._stays(n, model) for n in before):
            return
        watch.beside_sick.extend([now] * given)
        # Whoever is one of three when all are well would be given in any case, and so what only spreads three.
        stay = [n for n in before & after if self._stays(n, model)]
        if watch.idle:
            stay = [n for n in stay if not self.known[n].may_scale_to_zero]
        if sum(not self._sick(n, model) for n in stay) < REPLICAS_WANTED:
            watch.for_sick.extend([now] * min(given, max(0, len(stay) + given - REPLICAS_WANTED)))
        many = len(watch.for_sick) > SICK_REPLACED_MAX and now - watch.for_sick[0] < HOUR
        assert not many or now - watch.queued_at < QUEUED_SECONDS, (
            f"{model} was given nodes at {list(watch.for_sick)}, all because others of its are sick"
        )

    def leaves(self, node: Node) -> None:
        """A window closes or heat stops its engines, this very moment."""
        now = self._clock.now
        for model, engine in node.engines.items():
            since = self._leaves_since.get((node.node_id, model))
            if engine.condition is not Condition.SERVING or since is None:
                continue
            watch = self._watches[model]
            in_time = now - since >= LOAD_FACTORS[1] * engine.load_seconds + ANNOUNCED_SECONDS
            possible = {n for n in self._possible(model, watch.idle) if n != node.node_id and n in watch.holders}
            if not in_time or watch.cause_at > since or not possible:
                continue
            self.announced += 1
            # A loss of the same moment, of which nobody has heard, is another matter.
            others = possible & set(self._serving(model))
            enough = min(REPLICAS_WANTED, len(possible))
            assert len(others) >= enough, f"{node.node_id} leaves, as told, and of {model} only {others} are left"

    # --- what is feasible -----------------------------------------------------------------------------

    @staticmethod
    def _permits(facts: NodeFacts, model: str) -> bool:
        size = facts.engines[model].size
        return size is not None and size <= facts.memory and (not facts.allowed or model in facts.allowed)

    def _idle(self, model: str) -> bool:
        facts = self.models[model]
        return not (facts.under_way or facts.waiting) and self._clock.now - facts.asked_at >= IDLE_SECONDS

    def _stays(self, node: str, model: str) -> bool:
        """Whether a node is linked and about to stay so, long enough for this model."""
        facts, now = self.known[node], self._clock.now
        closes = facts.closes_at is not None and facts.closes_at - now <= horizon(self.models[model].load_seconds)
        return facts.linked and not (facts.draining or closes or node in self._hot)

    def _serving(self, model: str) -> list[str]:
        """Nodes that were told to serve it, say that they do, and stay."""
        return [
            node
            for node, told in self._told.items()
            if model in told
            and self.known[node].engines[model].condition is Condition.SERVING
            and self._stays(node, model)
        ]

    def _room(self, facts: NodeFacts, model: str) -> bool:
        there = self._told[facts.node_id] | {m for m, e in facts.engines.items() if e.condition in RESIDENT}
        there.discard(model)
        size = facts.engines[model].size or 0
        return sum(facts.engines[m].size or 0 for m in there) + size <= facts.memory

    def _possible(self, model: str, idle: bool) -> list[str]:
        """Nodes that have it or could, as far as anybody could know."""
        now, possible = self._clock.now, []
        for node, facts in self.known.items():
            if not self._permits(facts, model) or (idle and facts.may_scale_to_zero) or not self._stays(node, model):
                continue
            if facts.engines[model].condition is Condition.SICK:
                continue
            has = model in self._told[node]
            failed = self._failed_at.get((node, model))
            # What has just failed there counts, where it is being tried again, when it serves.
            if failed is not None and now - failed < RETRY_SECONDS_MAX + 100.0:
                if has and facts.engines[model].condition is Condition.SERVING:
                    possible.append(node)
            elif has or self._room(facts, model):
                possible.append(node)
        return possible

    # --- what is looked at after each run -------------------------------------------------------------

    def look(self) -> None:
        """Judge every model."""
        for model in self.models:
            self._note_idle(model)
            if self.models[model].waiting:
                self._watches[model].queued_at = self._clock.now
            self._look(model, self._watches[model])

    def _note_idle(self, model: str) -> bool:
        watch, idle, now = self._watches.setdefault(model, Watch()), self._idle(model), self._clock.now
        if idle is not watch.idle:
            watch.idle = idle
            self.cause()
            # One replica first, and three when it serves.
            load_seconds = LOAD_FACTORS[1] * self.models[model].load_seconds
            watch.cause_at = now if idle else now + load_seconds + MARGIN_SECONDS
        return idle

    def _look(self, model: str, watch: Watch) -> None:
        now, idle = self._clock.now, watch.idle
        load_seconds = LOAD_FACTORS[1] * self.models[model].load_seconds
        possible = self._possible(model, idle)
        holders = {node for node in possible if model in self._told[node]}
        lost = [node for node in watch.holders - holders if node not in possible]
        enough = min(REPLICAS_WANTED, len(possible))
        owners = min(REPLICAS_WANTED, len({self.known[node].owner for node in possible}))
        if lost or enough > watch.possible or owners > watch.owners_possible:
            watch.cause_at = max(watch.cause_at, now)
        watch.holders, watch.possible, watch.owners_possible = holders, enough, owners
        self._note_leaving(model)
        live = [node for node in holders if self._nodes[node].serving(model)]
        self._enough(model, watch, live, possible, load_seconds + MARGIN_SECONDS)
        if len(live) >= REPLICAS_WANTED:
            self._apart(model, watch, live, possible, load_seconds + MARGIN_SECONDS + SPREAD_SECONDS)
        else:
            watch.close_since = None

    def _note_leaving(self, model: str) -> None:
        for node, told in self._told.items():
            if model in told and not self._stays(node, model):
                self._leaves_since.setdefault((node, model), self._clock.now)
            else:
                self._leaves_since.pop((node, model), None)

    def _enough(self, model: str, watch: Watch, live: list[str], possible: list[str], seconds: float) -> None:
        now, enough = self._clock.now, min(REPLICAS_WANTED, len(possible))
        given = watch.beside_sick
        if len(given) == SICK_REPLACED_MAX and now - given[0] <= HOUR + MARGIN_SECONDS:
            # Those that are sick now need not be replaced before others may be again.
            sick = sum(model in told and self._sick(node, model) for node, told in self._told.items())
            enough = min(enough, REPLICAS_WANTED - sick)
        if len(live) >= enough:
            watch.short_since = None
            return
        if watch.short_since is None:
            watch.short_since = now
        waited = now - max(watch.short_since, watch.cause_at)
        assert waited <= seconds, (
            f"{model} has {sorted(live)} of {enough} replicas for {waited:.0f} s, and {seconds:.0f} s are enough: "
            f"{sorted(possible)} could have it"
        )

    def _apart(self, model: str, watch: Watch, live: list[str], possible: list[str], seconds: float) -> None:
        now = self._clock.now
        known = self.known
        one_owner = len({known[node].owner for node in possible}) == 1

        def domain(node: str) -> str:
            return known[node].network if one_owner else known[node].owner

        taken = {domain(node) for node in live}
        better = [
            node for node in possible if domain(node) not in taken and len(self._changed_at.get(node, ())) < CHANGES_MAX
        ]
        if len(taken) >= REPLICAS_WANTED or not better:
            watch.close_since = None
            return
        if watch.close_since is None:
            watch.close_since = now
        waited = now - max(watch.close_since, watch.cause_at)
        assert waited <= seconds, f"{model}: {sorted(live)} share {sorted(taken)} for {waited:.0f} s, beside {better}"

    # --- at the end -----------------------------------------------------------------------------------

    def ended(self) -> None:
        """All has been quiet for long: nobody is poorer than needs be."""
        counts = Counter({model: len(self._watches[model].holders) for model in self.models})
        for model in self.models:
            if self._idle(model) or counts[model] >= REPLICAS_WANTED:
                continue
            for node, facts in self.known.items():
                failed = (node, model) in self._failed_at
                if model in self._told[node] or failed or not self._permits(facts, model):
                    continue
                if not self._stays(node, model):
                    continue
                rich = {m for m in self._told[node] if counts[m] >= counts[model] + 2}
                left = sum(facts.engines[m].size or 0 for m in self._told[node] - rich)
                assert left + (facts.engines[model].size or 0) > facts.memory, (
                    f"{model} has {counts[model]} replicas, and {node} keeps {sorted(rich)} with two more"
                )
