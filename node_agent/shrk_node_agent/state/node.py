"""The one door: `NodeState.handle(event) -> effects`. The agent is the last authority on what its node does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from shrk_contract.terms import SERVING, EngineReport, Rejection, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.assignment import STOPPING, Assignment
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.engines import EngineView, ours_of
from shrk_node_agent.state.events import AttemptKey, EngineId, Event
from shrk_node_agent.state.liveness import Liveness, Want
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.seats import ANYWHERE, Seat
from shrk_node_agent.state.shown import Shown, best, report, shown
from shrk_node_agent.state.terms.permit import Permit, node_permit
from shrk_node_agent.state.terms.terms import Terms, Wishes

#: Attempts waiting in one engine beyond its slots; the next is told `busy` and goes elsewhere.
WAITING_MAX = 1_000

#: What serves, or will soon.
_ALIVE = frozenset({*SERVING, State.STARTING, State.DOWNLOADING, State.LOADING})
#: What tells of the owner's terms.
TermsEvent = (
    seen.SensorsRead | seen.SensorsFailed | seen.GpuActuated | seen.PauseAsked | seen.ResumeAsked | seen.TermsChanged
)


class NodeState:
    """All that the agent knows and decides. Change it only through `handle`."""

    def __init__(self, engines: Iterable[Need], memory_bytes: int = 0, terms: Terms | None = None) -> None:
        """`engines`: those that this node may run. `memory_bytes`: for all models together; 0: there is no bound.
        `terms`: what the owner allows; None: everything, always."""
        needs = list(engines)
        self.engines = {need.engine: EngineView(need.engine, need.model) for need in needs if need.served}
        self.assignment = Assignment.at_start(needs, memory_bytes)
        self.attempts: dict[AttemptKey, EngineId] = {}
        self.draining = False
        self.terms = terms or Terms()
        self.permit = Permit()
        #: When the GPUs were last read, and when an engine last ended on each.
        self._read_at = 0.0
        self._freed_at: dict[str, float] = {}
        #: When its state, as `status` tells it, became what it is.
        self.since = 0.0
        self._told_state: State | None = None
        #: Grows with every change that people or coordinators may want to see.
        self.revision = 0
        self._settle(0.0)
        self._take_permits(0.0)

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in one fact; return what the world should do about it, in order."""
        before = self.revision
        effects = self._handle(event)
        # Whatever changes the state is told: what comes with every answer costs no look at all engines.
        if self.revision != before and (state := self.status()[0]) is not self._told_state:
            self._told_state, self.since = state, event.now
        return effects

    def _handle(self, event: Event) -> Sequence[Effect]:
        match event:
            case seen.EngineProgressed():
                changed = self.engines[event.engine].progressed(event)
                return [self._tell()] if changed else []
            case seen.EngineBecameReady():
                self.engines[event.engine].became_ready(event)
                return [self._tell()]
            case seen.EngineEnded(now, ended):
                self._freed_at |= dict.fromkeys(self._devices(self.engines[ended]), now)
                self.engines[ended].ended(event)
                return [self._tell()]
            case seen.RetryAsked(now, model):
                asked = [e for e in self.engines.values() if model in (None, e.model)]
                return [self._tell()] if any([e.retry(now) for e in asked]) else []
            case seen.AnswersMoved() | seen.FiguresRead() | seen.CanaryAnswered():
                if liveness := self.engines[event.engine].liveness:
                    _live(liveness, event)
                return []
            case seen.AttemptAsked():
                return [self._answer(event)]
            case seen.AttemptEnded(_, key):
                engine = self.attempts.pop(key, None)
                if engine is not None:
                    self.engines[engine].attempt_ended()
                return []
            case seen.Assigned():
                return self._assigned(event)
            case seen.LinkChanged():
                # Whoever speaks on the next link is believed, whatever its clock says.
                self.assignment.revision = None
                return [self._tell()]
            case seen.DrainAsked():
                self.draining = True
                return [self._tell()]
            case seen.ModelsChanged(now, needs, memory_bytes):
                return self._serve(now, needs, memory_bytes)
            case (
                seen.SensorsRead()
                | seen.SensorsFailed()
                | seen.GpuActuated()
                | seen.PauseAsked()
                | seen.ResumeAsked()
                | seen.TermsChanged()
            ):
                return [*self._terms_told(event), *self._obey_terms(event.now)]
            case seen.Tick(now, utc):
                wishes = _actuations(self.terms.tick(now, utc))
                return [*wishes, *self._obey_terms(now), *self._tick(now)]
            case _:
                assert_never(event)

    def _tell(self) -> do.TellStatus:
        self.revision += 1
        return do.TellStatus()

    def _assigned(self, event: seen.Assigned) -> list[Effect]:
        revision = (event.leader_term, event.revision)
        if self.draining:
            # It is replaced and so told to unload, but what runs has until the drain's end.
            declined = self.assignment.declined(revision, event.models, STOPPING)
            return [do.TellAssigned(*revision, self.assignment.outcomes)] if declined else []
        if not self.assignment.assigned(revision, event.models, self._seated()):
            return []
        self._settle(event.now)
        return [do.TellAssigned(*revision, self.assignment.outcomes), self._tell()]

    def _serve(self, now: float, needs: Sequence[Need], memory_bytes: int) -> list[Effect]:
        for need in needs:
            if need.served:
                self.engines.setdefault(need.engine, EngineView(need.engine, need.model, since=now))
        self.assignment.serve(needs, memory_bytes, self._seated())
        self._settle(now)
        return [*self._obey_terms(now), self._tell()]

    def _seated(self) -> Mapping[EngineId, Seat]:
        """Who is loaded where; who sits on a GPU that is lost has to have another."""
        known = None if self.assignment.gpus is None else {gpu.uuid for gpu in self.assignment.gpus}
        seats: dict[EngineId, Seat] = {}
        for engine in self.engines.values():
            if engine.loaded and engine.seat is not None and (known is None or known.issuperset(engine.seat.devices)):
                # As it was planned: what was not free when it began may be when it begins again.
                planned = self.assignment.seats.get(engine.id, engine.seat)
                seats[engine.id] = planned if planned.devices == engine.seat.devices else engine.seat
        return seats

    def _settle(self, now: float) -> None:
        """Load and unload what has a seat now, and what has none."""
        for engine in self.engines.values():
            self._settle_one(now, engine)

    def _settle_one(self, now: float, engine: EngineView) -> None:
        if engine.id not in self.assignment.seats:
            engine.unwant(now, self.assignment.unwanted_why(engine.id))
        elif not engine.kept:
            engine.want(now)

    def _answer(self, asked: seen.AttemptAsked) -> Effect:
        key, model = asked.key, asked.model
        if self.draining:
            return do.RejectAttempt(key, Rejection.DRAINING, STOPPING)
        if not self.permit.admits:
            return do.RejectAttempt(key, Rejection.TERMS, self.permit.reason)
        serving = [e for e in self.engines.values() if e.model == model and e.state is State.ONLINE]
        if not serving:
            return do.RejectAttempt(key, Rejection.TERMS, f"this node does not serve {model!r} now")
        able = [e for e in serving if asked.endpoint in e.endpoints]
        if not able:
            return do.RejectAttempt(key, Rejection.UNSUPPORTED, f"{model!r} does not answer this endpoint here")
        allowed = [e for e in able if e.permit.admits]
        if not allowed:
            return do.RejectAttempt(key, Rejection.TERMS, able[0].permit.reason)
        engine = min(allowed, key=lambda e: e.load)
        if engine.in_flight >= engine.slots_allowed + (WAITING_MAX if engine.permit.slot_share >= 1.0 else 0):
            return do.RejectAttempt(key, Rejection.BUSY, "the engine's queue is full")
        self.attempts[key] = engine.id
        engine.attempt_began(asked.now)
        return do.RunAttempt(key, engine.id)

    # --- the owner's terms -------------------------------------------------------------------------

    def _terms_told(self, event: TermsEvent) -> list[Effect]:
        match event:
            case seen.SensorsRead(now, readings, abilities, pids):
                self._read_at = now
                ours = {reading.uuid: ours_of(self._on(reading.uuid), pids) for reading in readings}
                wishes = _actuations(self.terms.read(now, readings, abilities, ours))
                return [*wishes, *self._place(now, readings)]
            case seen.SensorsFailed(_, reason):
                self.terms.failed(reason)
            case seen.GpuActuated(now, uuid, rung, confirmed):
                self.terms.actuated(now, uuid, rung, confirmed)
            case seen.PauseAsked(now, seconds, at_once):
                self.terms.pause_for(now, seconds, at_once)
            case seen.ResumeAsked():
                self.terms.pause = None
            case seen.TermsChanged(_, wanted):
                self.terms.change(wanted)
            case _:
                assert_never(event)
        return []

    def _place(self, now: float, readings: Iterable[GpuReading]) -> list[Effect]:
        """Find seats where other GPUs are there than before, or other ones are taken away."""
        if not self.terms.wanted.gpus:
            return []
        # Which one poll could not read, that is as large as before.
        before = {gpu.uuid: gpu.memory_bytes for gpu in self.assignment.gpus or ()}
        there = tuple(
            replace(reading, memory_bytes=reading.memory_bytes or before.get(reading.uuid, 0))
            for reading in readings
            if not reading.lost
        )
        taken_away = frozenset(gpu.uuid for gpu in there if self.terms.permit(now, [gpu.uuid]).drain_by is not None)
        same = self.assignment.gpus is not None and before == {gpu.uuid: gpu.memory_bytes for gpu in there}
        if same and taken_away == self.assignment.taken_away:
            return []
        self.assignment.gpus, self.assignment.taken_away = there, taken_away
        self.assignment.plan(self._seated())
        self._settle(now)
        return [self._tell()]

    def _on(self, uuid: str) -> list[EngineView]:
        """The engines that run on a GPU, will run there or, having none, could."""
        return [engine for engine in self.engines.values() if uuid in (self._devices(engine) or (uuid,))]

    def gpus_of(self, engine: EngineView) -> list[int]:
        """The indexes of the GPUs that it runs on, or is to run on."""
        devices = self._devices(engine)
        return [reading.index for reading in self.terms.readings if reading.uuid in devices]

    def _devices(self, engine: EngineView) -> Sequence[str]:
        """Its GPUs: those that it runs on, or is to run on."""
        seat = engine.seat or self.assignment.seats.get(engine.id)
        return seat.devices if seat is not None else ()

    def _take_permits(self, now: float) -> None:
        for engine in self.engines.values():
            engine.permitted(now, self.terms.permit(now, self._devices(engine)))
        seated = [engine for engine in self.engines.values() if engine.id in self.assignment.seats]
        alive = [engine for engine in seated if engine.state in _ALIVE] or seated
        self.permit = node_permit(engine.permit for engine in alive) if alive else self.terms.permit(now)

    def _obey_terms(self, now: float) -> list[Effect]:
        """Take in what is permitted now: what is loaded, and what runs."""
        before = self._permitted()
        self._take_permits(now)
        effects: list[Effect] = []
        for engine in self.engines.values():
            if engine.gives_way is not engine.kept:
                engine.kept = engine.gives_way
                if engine.kept:
                    engine.keep_back(now, engine.permit.reason)
                else:
                    self._settle_one(now, engine)
            if moved := self._beyond(now, engine):
                effects.append(do.MoveAttempts(moved, engine.permit.reason))
        return [*effects, self._tell()] if self._permitted() != before else effects

    def _permitted(self) -> list[object]:
        permits = [self.permit, *(engine.permit for engine in self.engines.values())]
        return [(p.state, p.admits, p.slot_share, p.stop, p.drain_by is None) for p in permits]

    def _beyond(self, now: float, engine: EngineView) -> tuple[AttemptKey, ...]:
        """What runs in it and may not: all once the time to drain is over, else the newest beyond the slots left."""
        permit = engine.permit
        over = permit.drain_by is not None and now >= permit.drain_by
        if permit.slot_share >= 1.0 and not over:
            return ()
        keys = tuple(key for key, running in self.attempts.items() if running == engine.id)
        return keys if over else keys[engine.slots_allowed :]

    @property
    def kept_back(self) -> str:
        """Why nothing new is taken, by the owner's terms; empty: it is."""
        return "" if self.permit.admits else self.permit.reason

    def closes_in(self, now: float) -> float | None:
        """Seconds until what runs here has to be elsewhere; None: nobody knows of such a time."""
        if self.permit.drain_by is not None:
            return max(0.0, self.permit.drain_by - now)
        return self.permit.closes_in

    # --- time --------------------------------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        served = self.assignment.needs
        self.engines = {e.id: e for e in self.engines.values() if e.id in served or e.loaded or e.in_flight}
        changed = False
        for engine in self.engines.values():
            if not self.draining and engine.unloads(now):
                effects.append(do.UnloadEngine(engine.id))
            if engine.start_at is not None and now >= engine.start_at:
                changed |= self._start(now, engine, effects)
            match engine.tick(now):
                case None:
                    pass
                case Want.READ_FIGURES:
                    effects.append(do.ReadFigures(engine.id))
                case Want.ASK_CANARY:
                    effects.append(do.AskCanary(engine.id))
                case Want.RESTART:
                    effects.append(do.RestartEngine(engine.id, engine.reason))
                    changed = True
                case want:
                    assert_never(want)
        return [*effects, self._tell()] if changed else effects

    def _start(self, now: float, engine: EngineView, effects: list[Effect]) -> bool:
        """Start it where it has room; True where people should hear of what came of that."""
        loaded = {other.id: other.seat or ANYWHERE for other in self.engines.values() if other.loaded}
        unseen = self.terms.wanted.gpus and self.assignment.gpus is None
        # To load is work too; and what has just ended there is not free before the next reading says so.
        freed_at = max((self._freed_at.get(device, -1.0) for device in self._devices(engine)), default=-1.0)
        if self.draining or unseen or not engine.permit.admits or self._read_at < freed_at:
            return False
        if not self.assignment.has_room(engine.id, loaded):
            return False
        seat = self.assignment.seats[engine.id].started_on(self.terms.readings)
        if isinstance(seat, str):
            changed, engine.reason = engine.reason != seat, seat
            return changed
        engine.started(now, seat)
        effects.append(do.StartEngine(engine.id, seat))
        return True

    # --- what is told ------------------------------------------------------------------------------

    def status(self) -> tuple[State, str]:
        """The node's own state, and why."""
        if self.draining:
            return State.DRAINING, "the agent is stopping"
        if self.permit.state is not None:
            return self.permit.state, self.permit.reason
        if not self.engines:
            return State.PAUSED, "no model is to be served"
        best = self._best()
        return best.state, best.reason

    def next_action(self) -> str:
        """What its owner can do about its state."""
        if self.permit.state is not None or not self.engines:
            return self.permit.next_action
        best = self._best()
        return "" if best.state in SERVING else best.next_action

    def _best(self) -> Shown:
        return best(map(self.shown, self.engines.values()))

    def shown(self, engine: EngineView) -> Shown:
        """An engine as people see it: as the owner's terms leave it."""
        return shown(engine, node_admits=True)

    def since_of(self, engine: EngineView) -> float:
        """Since when it is what it is shown as."""
        by_terms = self.shown(engine).state is engine.permit.state is not engine.state
        return engine.permit_since if by_terms else engine.since

    def reports(self, now: float, unix_ms: int) -> tuple[EngineReport, ...]:
        """Every engine as coordinators hear of it."""
        return tuple(self._report(engine, now, unix_ms) for engine in self.engines.values())

    def _report(self, engine: EngineView, now: float, unix_ms: int) -> EngineReport:
        need = self.assignment.needs.get(engine.id)
        memory_bytes = need.bytes_on(self.assignment.gpus) if need is not None else 0
        seen_as = shown(engine, self.permit.admits)
        state = State.DRAINING if self.draining else seen_as.state
        return report(engine, replace(seen_as, state=state), memory_bytes, unix_ms - int((now - engine.since) * 1000))


def _actuations(wishes: Wishes) -> list[Effect]:
    return [do.ActuateGpu(uuid, wish.rung, wish.value) for uuid, wish in wishes]


def _live(liveness: Liveness, event: seen.AnswersMoved | seen.FiguresRead | seen.CanaryAnswered) -> None:
    match event:
        case seen.AnswersMoved(now, _, held):
            liveness.answers_moved(now, held)
        case seen.FiguresRead(now, _, figures):
            liveness.figures_read(now, figures)
        case seen.CanaryAnswered(now):
            liveness.moved(now)
        case _:
            assert_never(event)
