"""The one door: `NodeState.handle(event) -> effects`. The agent is the last authority on what its node does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from shrk_contract.terms import EngineReport, Rejection, State, Status
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.assignment import STOPPING, Assignment, Need
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.engines import KEPT_BACK, NO_ROOM, NO_ROOM_YET, NOT_ASSIGNED, EngineView
from shrk_node_agent.state.events import AttemptKey, EngineId, Event
from shrk_node_agent.state.liveness import Liveness, Want
from shrk_node_agent.state.terms.occupancy import Ours
from shrk_node_agent.state.terms.permit import Pause
from shrk_node_agent.state.terms.terms import Terms, Wishes

#: Attempts waiting in one engine beyond its slots; the next is told `busy` and goes elsewhere.
WAITING_MAX = 1_000
#: More than any card has.
WHOLE_CARD_BYTES = 1 << 50

_NEXT_ACTION = {
    State.INCOMPATIBLE: "Mend the model's source or take it off `models`, then restart the agent.",
    State.STARTING: "",
    State.PAUSED: "Nothing: it is loaded as soon as a coordinator wants it here and there is room.",
}
#: What the node as a whole is, from the best of its engines.
_BEST_FIRST = (
    State.ONLINE,
    State.BUSY,
    State.LOADING,
    State.DOWNLOADING,
    State.STARTING,
    State.DRAINING,
    State.PAUSED,
    State.INCOMPATIBLE,
)


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
        self.engines = {n.engine: EngineView(n.engine, n.model, memory_bytes=n.memory_bytes) for n in needs}
        self.assignment = Assignment.at_start(needs, memory_bytes)
        for engine in self.engines.keys() - set(self.assignment.wanted):
            self.engines[engine].unwant(0.0, NO_ROOM_YET)
        self.attempts: dict[AttemptKey, EngineId] = {}
        self.draining = False
        self.terms = terms or Terms()
        self.permit = self.terms.permit(0.0)
        #: The terms want all that is loaded to be ended.
        self._kept = False
        #: Grows with every change that people or coordinators may want to see.
        self.revision = 0

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in one fact; return what the world should do about it, in order."""
        match event:
            case seen.EngineProgressed():
                changed = self.engines[event.engine].progressed(event)
                return [self._tell()] if changed else []
            case seen.EngineBecameReady():
                self.engines[event.engine].became_ready(event)
                return [self._tell()]
            case seen.EngineEnded():
                self.engines[event.engine].ended(event)
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
        if not self.assignment.assigned(revision, event.models):
            return []
        for engine in self.engines.values():
            if engine.id not in self.assignment.wanted:
                engine.unwant(event.now, NO_ROOM if engine.model in event.models else NOT_ASSIGNED)
            elif not self._kept:
                engine.want(event.now)
        return [do.TellAssigned(*revision, self.assignment.outcomes), self._tell()]

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
        engine = min(able, key=lambda e: e.load)
        if engine.in_flight >= self._slots(engine) + (WAITING_MAX if self.permit.slot_share >= 1.0 else 0):
            return do.RejectAttempt(key, Rejection.BUSY, "the engine's queue is full")
        self.attempts[key] = engine.id
        engine.attempt_began(asked.now)
        return do.RunAttempt(key, engine.id)

    # --- the owner's terms -------------------------------------------------------------------------

    def _terms_told(self, event: TermsEvent) -> list[Effect]:
        match event:
            case seen.SensorsRead(now, readings, abilities, pids):
                loaded = any(engine.loaded for engine in self.engines.values())
                ours = Ours(
                    pids,
                    # What an engine takes beside its model is its own affair: while one is there, all may be ours.
                    WHOLE_CARD_BYTES if loaded else 0,
                    working=any(e.in_flight or (e.loaded and e.liveness is None) for e in self.engines.values()),
                )
                return _actuations(self.terms.read(now, readings, abilities, ours))
            case seen.SensorsFailed(_, reason):
                self.terms.failed(reason)
            case seen.GpuActuated(now, uuid, rung, confirmed):
                self.terms.actuated(now, uuid, rung, confirmed)
            case seen.PauseAsked(now, seconds):
                self.terms.pause = Pause(now, None if seconds is None else now + seconds)
            case seen.ResumeAsked():
                self.terms.pause = None
            case seen.TermsChanged(_, wanted):
                self.terms.change(wanted)
            case _:
                assert_never(event)
        return []

    def _obey_terms(self, now: float) -> list[Effect]:
        """Take in what is permitted now: what is loaded, and what runs."""
        before, self.permit = self.permit, self.terms.permit(now)
        permit = self.permit
        if permit.stop is not self._kept:
            self._kept = permit.stop
            for engine in self.engines.values():
                if self._kept:
                    engine.keep_back(now, KEPT_BACK)
                elif engine.id in self.assignment.wanted:
                    engine.want(now)
        effects: list[Effect] = []
        if moved := self._beyond(now):
            effects.append(do.MoveAttempts(moved, permit.reason))
        told = (permit.state, permit.admits, permit.slot_share, permit.stop, permit.drain_by is None)
        if told != (before.state, before.admits, before.slot_share, before.stop, before.drain_by is None):
            effects.append(self._tell())
        return effects

    def _beyond(self, now: float) -> tuple[AttemptKey, ...]:
        """What runs and may not: all of it once the time to drain is over, else the newest beyond the slots left."""
        permit = self.permit
        if permit.slot_share >= 1.0 and (permit.drain_by is None or now < permit.drain_by):
            return ()
        if permit.drain_by is not None and now >= permit.drain_by:
            return tuple(self.attempts)
        moved: list[AttemptKey] = []
        for engine in self.engines.values():
            keys = [key for key, running in self.attempts.items() if running == engine.id]
            moved += keys[self._slots(engine) :]
        return tuple(moved)

    def _slots(self, engine: EngineView) -> int:
        """How many answers it may generate at once, as heat leaves them."""
        share = self.permit.slot_share
        return engine.slots if share >= 1.0 else max(int(engine.slots * share), 1 if share > 0 else 0)

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
        changed = False
        for engine in self.engines.values():
            if not self.draining and engine.unloads(now):
                effects.append(do.UnloadEngine(engine.id))
            if engine.start_at is not None and now >= engine.start_at and self._may_start(engine):
                engine.started(now)
                effects.append(do.StartEngine(engine.id))
                changed = True
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

    def _may_start(self, engine: EngineView) -> bool:
        loaded = [other.id for other in self.engines.values() if other.loaded]
        return not self.draining and self.assignment.has_room(engine.id, loaded)

    # --- what is told ------------------------------------------------------------------------------

    def status(self) -> tuple[State, str]:
        """The node's own state, and why."""
        if self.draining:
            return State.DRAINING, "the agent is stopping"
        if self.permit.state is not None:
            return self.permit.state, self.permit.reason
        if not self.engines:
            return State.PAUSED, "no model is to be served"
        best = min(self.engines.values(), key=lambda e: _BEST_FIRST.index(e.state))
        return best.state, best.reason or best.detail

    def reports(self, now: float, unix_ms: int) -> tuple[EngineReport, ...]:
        """Every engine as coordinators hear of it."""
        return tuple(self._report(e, now, unix_ms) for e in self.engines.values())

    def _report(self, engine: EngineView, now: float, unix_ms: int) -> EngineReport:
        slots = self._slots(engine)
        running = min(engine.in_flight, slots)
        return EngineReport(
            id=engine.id,
            model=engine.model,
            status=Status(
                state=State.DRAINING if self.draining else engine.state,
                reason=(engine.reason or engine.detail)[:2_000],
                next_action=self.permit.next_action if self._kept else _NEXT_ACTION.get(engine.state, ""),
                since_unix_ms=unix_ms - int((now - engine.since) * 1000),
            ),
            pin=engine.pin,
            endpoints=engine.endpoints,
            slots=slots,
            running=running,
            waiting=engine.in_flight - running,
            context_tokens=engine.context_tokens,
            progress=engine.progress,
            life=engine.life,
            memory_bytes=engine.memory_bytes,
        )


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
