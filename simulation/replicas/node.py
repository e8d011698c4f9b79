"""One played node: its engines, what it was told to load, and what it reports; it obeys late, and not always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from shrk_coordinator.state.replicas.facts import RESIDENT, Assignment, Condition, EngineFacts, NodeFacts
from simulation.clock import Clock

#: What happened reaches the coordinator with the next report, at the latest after this.
REPORT_SECONDS = 5.0
#: An assignment is on its way for so long, and an engine that is to stop finishes what it does for so long, at most.
DELIVERY_SECONDS = 1.0
UNLOAD_SECONDS = 10.0
#: A load takes between these times its usual one.
LOAD_FACTORS = (0.7, 1.3)


@dataclass(slots=True)
class Engine:
    """One model here."""

    size: int | None
    load_seconds: float
    #: How often loading it fails.
    fails: float
    condition: Condition = Condition.ABSENT
    since: float = 0.0
    #: Grows with every change, so that what was begun for an earlier one comes to nothing.
    serial: int = 0
    #: It failed, and is not tried again before it was taken back and asked for anew.
    given_up: bool = False
    #: It is to stop, and still finishes what it does.
    stopping: bool = False


@dataclass(slots=True)
class Node:
    """One node."""

    node_id: str
    owner: str
    network: str
    host: str
    memory: int
    allowed: frozenset[str]
    may_scale_to_zero: bool
    engines: dict[str, Engine]
    clock: Clock
    rng: Random
    #: Hears that something is worth reporting.
    tell: Callable[[Node], None]
    #: Hears that a load failed, with the model.
    failed: Callable[[Node, str], None]
    #: Hears that an engine serves, with the model.
    serves: Callable[[Node, str], None]
    #: Process and link; what runs survives the loss of a link only.
    up: bool = True
    linked: bool = True
    linked_at: float = 0.0
    closes_at: float | None = None
    closed: bool = False
    margin: float | None = None
    revision: int = 0
    wanted: set[str] = field(default_factory=set)

    def facts(self) -> NodeFacts:
        """What it reports now."""
        engines = {
            model: EngineFacts(size=engine.size, condition=engine.condition, since=engine.since)
            for model, engine in self.engines.items()
        }
        return NodeFacts(
            node_id=self.node_id,
            owner=self.owner,
            network=self.network,
            host=self.host,
            linked=True,
            since=self.linked_at,
            memory=self.memory,
            engines=engines,
            allowed=self.allowed,
            closes_at=self.closes_at,
            margin=self.margin,
            draining=self.closed,
            may_scale_to_zero=self.may_scale_to_zero,
            revision=self.revision,
        )

    def taken(self) -> int:
        """Bytes that engines take."""
        return sum(engine.size or 0 for engine in self.engines.values() if engine.condition in RESIDENT)

    def serving(self, model: str) -> bool:
        """Whether it answers requests for the model."""
        engine = self.engines.get(model)
        return self.up and self.linked and engine is not None and engine.condition is Condition.SERVING

    def obey(self, assignment: Assignment) -> None:
        """An assignment arrived."""
        if not self.up or not self.linked or assignment.revision <= self.revision:
            return
        self.revision = assignment.revision
        self.wanted = set(assignment.models)
        for model, engine in self.engines.items():
            engine.given_up = engine.given_up and model in self.wanted
        self.work()
        self.tell(self)

    def work(self) -> None:
        """Unload what it should not have; load what it should, as soon as there is room."""
        for model, engine in self.engines.items():
            if engine.condition in RESIDENT and model not in self.wanted and not engine.stopping:
                engine.stopping = True
                seconds = UNLOAD_SECONDS * self.rng.random()
                self.clock.after(seconds, partial(self._unloaded, model, engine.serial))
        if self.closed or not self.up:
            return
        for model in sorted(self.wanted):
            engine = self.engines[model]
            if engine.condition in RESIDENT or engine.size is None:
                continue
            if engine.given_up:
                continue
            if self.allowed and model not in self.allowed:
                self._refuse(model, engine)
            elif self.taken() + engine.size <= self.memory:
                self._load(model, engine)

    def _load(self, model: str, engine: Engine) -> None:
        self._change(model, Condition.LOADING)
        low, high = LOAD_FACTORS
        seconds = engine.load_seconds * (low + (high - low) * self.rng.random())
        fails = self.rng.random() < engine.fails
        if fails:
            seconds *= self.rng.random()
        self.clock.after(seconds, partial(self._loaded, model, engine.serial, fails))

    def _loaded(self, model: str, serial: int, fails: bool) -> None:
        engine = self.engines[model]
        if engine.serial != serial or not self.up:
            return
        if fails:
            self._fail(model, engine)
        else:
            self._change(model, Condition.SERVING)
            self.serves(self, model)
            self.work()  # It may have been told to stop meanwhile.

    def crash(self, model: str) -> None:
        """An engine ends by itself, and its node gives it up."""
        if self.engines[model].condition in RESIDENT:
            self._fail(model, self.engines[model])

    def sicken(self, model: str, serial: int) -> bool:
        """Requests begin to fail at an engine that serves, if it is this one still; whether it is."""
        engine = self.engines[model]
        if engine.condition is not Condition.SERVING or engine.serial != serial:
            return False
        self._turn(engine, Condition.SICK)
        return True

    def recover(self, model: str, serial: int) -> bool:
        """A sick engine answers again by itself, if it is this one still; whether it is."""
        engine = self.engines[model]
        if engine.condition is not Condition.SICK or engine.serial != serial:
            return False
        self._turn(engine, Condition.SERVING)
        return True

    def _turn(self, engine: Engine, condition: Condition) -> None:
        # It is the same engine still: what stops it goes on.
        engine.condition, engine.since = condition, self.clock.now
        self.tell(self)

    def _fail(self, model: str, engine: Engine) -> None:
        self._refuse(model, engine)
        self.failed(self, model)
        self.work()

    def _refuse(self, model: str, engine: Engine) -> None:
        self._change(model, Condition.FAILED)
        engine.given_up = True

    def _unloaded(self, model: str, serial: int) -> None:
        engine = self.engines[model]
        if not engine.stopping or engine.serial != serial:
            return
        if model in self.wanted and not self.closed:
            engine.stopping = False  # It was told to keep it after all.
            return
        if engine.condition in RESIDENT:
            self._change(model, Condition.ABSENT)
        self.work()

    def _change(self, model: str, condition: Condition) -> None:
        engine = self.engines[model]
        engine.condition, engine.since = condition, self.clock.now
        engine.serial += 1
        engine.stopping = False
        self.tell(self)

    def stop_all(self) -> None:
        """All engines end."""
        for model, engine in self.engines.items():
            if engine.condition in RESIDENT:
                self._change(model, Condition.ABSENT)
