"""One run: a cluster drawn from a seed, an hour or two of all that happens to nodes, then peace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from random import Random

from shrk_coordinator.state.replicas.facts import Assignment, ModelFacts, NodeFacts
from simulation.clock import BEGINNING, Clock
from simulation.replicas import faults
from simulation.replicas.laws import Laws
from simulation.replicas.node import DELIVERY_SECONDS, REPORT_SECONDS, Engine, Node
from simulation.replicas.planted import Bug, reconciler_with
from simulation.trace import Trace

#: The reconciler runs this often where nothing happens, and so soon after something has. Once a second, as in the
#: product, shows nothing more and takes ten times as long.
RUN_SECONDS = 10.0
RUN_SOON_SECONDS = 1.0
#: When the last fault is over, loads, backoffs, surpluses and quiet demand take this long to be as they will stay.
PEACE_SECONDS = 6_000.0
GB = 1 << 30


class Violation(AssertionError):
    """Something that must hold did not: with its seed, its moment, what led to it, and the command that replays it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

    seed: int
    nodes: int
    models: int
    #: Hours of one node, changes of one node's assignment, and the most of them in one hour.
    node_hours: float
    changes: int
    changes_per_hour_max: int
    causes: int
    #: Losses that a window or heat had announced in time, with another node there.
    announced: int
    digest: str


@dataclass(frozen=True, slots=True)
class Course:
    """What to run, beside the seed."""

    bug: Bug | None = None
    digest: bool = False
    show: bool = False

    def command(self, seed: int) -> str:
        """The command that runs it."""
        planted = f" --plant {self.bug}" if self.bug else ""
        return f"python -m simulation.replicas --seed {seed}{planted} --trace"


def simulate(seed: int, course: Course = Course()) -> Outcome:
    """Run one seed to its end. Raises Violation."""
    clock = Clock()
    trace = Trace(clock, digest=course.digest, show=course.show)
    try:
        return Cluster(seed, course, clock, trace).to_its_end()
    except Exception as error:
        what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise Violation(
            f"seed {seed}, at {clock.now - BEGINNING:.3f} s: {what}\n{trace.last()}\nReplay it: {course.command(seed)}"
        ) from error


class Cluster:
    """One seed's nodes, models and demand, and what carries words between them and the reconciler."""

    def __init__(self, seed: int, course: Course, clock: Clock, trace: Trace) -> None:
        self.seed, self.clock, self.trace = seed, clock, trace
        self.rng = rng = Random(seed)
        self.reconciler = reconciler_with(course.bug, clock.now)
        self.models = {f"model-{i}": self._draw_model(f"model-{i}") for i in range(rng.randint(1, 8))}
        self.sizes = {model: rng.choice((4, 8, 8, 16)) * GB for model in self.models}
        #: Models that no engine answers: whatever loads them falls sick.
        self.bad: set[str] = set()
        self.flaky = rng.choice((0.0, 0.0, 0.05, 0.3))
        self.nodes: dict[str, Node] = {}
        self._owners = rng.choice((1, 2, 3, 5, 20))
        self._networks = rng.choice((1, 3, 30))
        self._lists = rng.random() < 0.5
        self._zero = rng.choice((0.0, 0.5, 1.0))
        self._reports: set[str] = set()
        self._running_soon = False
        self.laws = Laws(self.reconciler, clock, self.nodes)
        for facts in self.models.values():
            self.set_model(facts)
        for _ in range(min(60, 3 + int(rng.expovariate(0.12)))):
            clock.after(rng.random() * 20.0, self.join)
        self.seconds = rng.choice((1_800.0, 3_600.0, 6_000.0))
        self.faults_end = BEGINNING + self.seconds
        self._drawn = faults.draw(self, self.seconds)

    def _draw_model(self, model: str) -> ModelFacts:
        return ModelFacts(model, self.clock.now, load_seconds=self.rng.choice((10.0, 40.0, 120.0, 240.0)))

    def join(self) -> None:
        """A node is there that was not there before."""
        rng, number = self.rng, len(self.nodes)
        owner = f"owner-{rng.randrange(self._owners)}"
        network = f"{owner}/{rng.randrange(2)}" if rng.random() < 0.7 else f"net-{rng.randrange(self._networks)}"
        names = sorted(self.models)
        allowed = frozenset(rng.sample(names, rng.randint(1, len(names)))) if self._lists else frozenset()
        engines = {
            model: Engine(
                size=None if rng.random() < 0.1 else self.sizes[model],
                load_seconds=self.models[model].load_seconds,
                fails=1.0 if rng.random() < self.flaky / 5 else self.flaky,
            )
            for model in names
        }
        node = Node(
            node_id=f"n{number:02}",
            owner=owner,
            network=network,
            host=f"host-{rng.randrange(3) if rng.random() < 0.2 else number}",
            memory=rng.choice((0, 8, 16, 24, 32)) * GB,
            allowed=allowed,
            may_scale_to_zero=rng.random() < self._zero,
            engines=engines,
            clock=self.clock,
            rng=rng,
            tell=self.report_soon,
            failed=self._load_failed,
            serves=self._serves,
            linked_at=self.clock.now,
        )
        self.nodes[node.node_id] = node
        self.cause("joins", node)
        self.hello(node)

    def cause(self, what: str, node: Node) -> None:
        """Something happens that may force changes."""
        self.trace.add(node.node_id, what, "")
        self.laws.cause()

    def _load_failed(self, node: Node, model: str) -> None:
        self.cause(f"fails to load {model}", node)

    def _serves(self, node: Node, model: str) -> None:
        if model in self.bad:
            faults.spoil(self, node, model)

    # --- words on their way ---------------------------------------------------------------------------

    def hello(self, node: Node) -> None:
        """A node's link is open."""
        node.linked, node.linked_at = True, self.clock.now
        self._tell(node.facts())
        newest = self.reconciler.assignment(node.node_id)
        if newest is not None:
            self._deliver(newest)

    def lost(self, node: Node, known_after: float = 0.0) -> None:
        """A node's link is gone; the coordinator knows at once, or when it has been silent for too long."""
        node.linked = False
        gone_at = self.clock.now
        self.clock.after(known_after, partial(self._told_lost, node, gone_at))

    def _told_lost(self, node: Node, gone_at: float) -> None:
        if not node.linked and node.linked_at <= gone_at:
            self._tell(replace(self.laws.known[node.node_id], linked=False, since=self.clock.now))

    def report_soon(self, node: Node) -> None:
        """A node has something to report; it does with its next report."""
        if node.node_id not in self._reports:
            self._reports.add(node.node_id)
            self.clock.after(REPORT_SECONDS * self.rng.random(), partial(self._report, node))

    def _report(self, node: Node) -> None:
        self._reports.discard(node.node_id)
        if node.up and node.linked:
            self._tell(node.facts())

    def _tell(self, facts: NodeFacts) -> None:
        self.reconciler.node(self.clock.now, facts)
        self.laws.told(facts)
        self.trace.add(facts.node_id, "is", _words(facts))
        if not self._running_soon:
            self._running_soon = True
            self.clock.after(RUN_SOON_SECONDS, self._run_soon)

    def set_model(self, facts: ModelFacts) -> None:
        """A model's facts are new."""
        self.models[facts.model] = facts
        self.reconciler.model(self.clock.now, facts)
        self.laws.models[facts.model] = facts

    # --- the reconciler -------------------------------------------------------------------------------

    def _run_soon(self) -> None:
        self._running_soon = False
        self._run()

    def _run_often(self, until: float) -> None:
        self._run()
        if self.clock.now < until:
            self.clock.after(RUN_SECONDS, partial(self._run_often, until))

    def _run(self) -> None:
        assignments = self.reconciler.run(self.clock.now)
        for assignment in assignments:
            self.trace.add(assignment.node_id, f"should have, by {assignment.revision},", assignment.models)
            self._deliver(assignment)
        self.laws.assigned(assignments)
        self.laws.look()

    def _deliver(self, assignment: Assignment) -> None:
        node = self.nodes[assignment.node_id]
        self.clock.after(DELIVERY_SECONDS * self.rng.random(), partial(node.obey, assignment))

    # --- the run --------------------------------------------------------------------------------------

    def to_its_end(self) -> Outcome:
        """All of it."""
        clock, laws = self.clock, self.laws
        end = BEGINNING + self.seconds + PEACE_SECONDS
        for at, action in self._drawn:
            clock.at(BEGINNING + at, action)
        clock.after(1.0, partial(self._run_often, end))
        clock.run(BEGINNING + self.seconds)
        faults.heal(self)
        clock.run(end)
        laws.ended()
        return Outcome(
            seed=self.seed,
            nodes=len(self.nodes),
            models=len(self.models),
            node_hours=len(self.nodes) * (self.seconds + PEACE_SECONDS) / 3_600.0,
            changes=laws.changes,
            changes_per_hour_max=laws.changes_per_hour_max,
            causes=laws.causes,
            announced=laws.announced,
            digest=self.trace.digest,
        )


def _words(facts: NodeFacts) -> str:
    engines = " ".join(f"{m}:{e.condition.value}" for m, e in facts.engines.items() if e.since)
    link = "linked" if facts.linked else "not linked"
    return f"{link}, draining {facts.draining}, margin {facts.margin}, closes {facts.closes_at}, {engines}"
