"""One start of a node's agent: its own state, session and sinks; its driver without an event loop.

What the product's `driver.py` does with tasks is done here with actions in virtual time, line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

from shrk_contract.terms import Fault, Host, Rejection, Report, Status, Terms
from shrk_contract.turns import Turns
from shrk_node_agent.attempts import AttemptSink, Failed, Order
from shrk_node_agent.link.session import Session, SessionSink
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.events import AttemptKey, EngineId, Event
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from simulation.clock import Action
from simulation.dialling import Dialling, Listener
from simulation.engine import Engine, EngineKind
from simulation.generation import Generation
from simulation.wire import Line
from simulation.world import World

#: Half as often as in the product, for speed: nothing in an agent's state is measured in less.
TICK_SECONDS = 0.5
#: As in the agent's composition root.
HANDOVER_SECONDS_MIN = 2.0


class Agent:
    """From its start to its end, which may come at any moment."""

    def __init__(
        self, world: World, node_id: str, incarnation: int, line: Line, kinds: list[EngineKind], listener: Listener
    ) -> None:
        self.world = world
        self.node_id = node_id
        self.alive = True
        self.state = NodeState(Need(kind.id, kind.model) for kind in kinds)
        self.engines = {kind.id: Engine(self, kind) for kind in kinds}
        #: The next attempts are told that the node is busy, though it is not.
        self.pretends_busy = False
        #: Told when one of its engines ends by itself.
        self.crashed: Callable[[], None] = lambda: None
        self.running: dict[AttemptKey, Generation] = {}
        #: While it drains: when it stops at the latest.
        self.leaves_at: float | None = None
        self.dialling = Dialling(self, line, listener, incarnation)
        self._turns = Turns(self._take)
        self._orders: dict[AttemptKey, tuple[Order, SessionSink]] = {}
        #: What is due while its process does not run.
        self._frozen: list[Action] | None = None
        self._freezes = 0
        self._report_sequence = 0

    # --- its process --------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self.world.clock.now

    def start(self) -> None:
        """It is run."""
        self._tick()
        self.dialling.dial()

    def run(self, action: Action) -> None:
        """Do it now, or when the process runs again, or never."""
        if not self.alive:
            return
        if self._frozen is None:
            action()
        else:
            self._frozen.append(action)

    def later(self, seconds: float, action: Action) -> None:
        """Do it so much later, if there is still a process to do it."""
        self.world.clock.after(seconds, partial(self.run, action))

    def freeze(self) -> None:
        """The process is stopped, or its machine asleep; nothing of it knows."""
        self._freezes += 1
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        """It goes on, with all that has come meanwhile."""
        self._freezes -= 1
        if self._freezes:
            return
        due, self._frozen = self._frozen or [], None
        for action in due:
            self.run(action)

    def kill(self, quietly: bool) -> None:
        """It is gone with its engines; quietly: unplugged, so that nobody hears of it."""
        self.alive = False
        self.dialling.cut(quietly)

    def _tick(self) -> None:
        for engine in self.engines.values():
            if engine.up and engine.moved():
                self.post(seen.AnswersMoved(self.now, engine.kind.id, engine.held))
        self.post(seen.Tick(self.now))
        self.later(TICK_SECONDS, self._tick)

    def post(self, event: Event) -> None:
        """Take in one fact and carry out what follows from it."""
        self._turns.post(event)

    def _take(self, event: Event) -> None:
        effects = self.state.handle(event)
        if effects or not isinstance(event, (seen.Tick, seen.AnswersMoved)):
            self.world.trace.add(self.node_id, "saw", event)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case do.StartEngine(engine):
                self.engines[engine].start()
            case do.ReadFigures(engine):
                self.engines[engine].read_figures()
            case do.AskCanary(engine):
                self.engines[engine].ask_canary()
            case do.RestartEngine(engine):
                self._end_hung(engine)
            case do.UnloadEngine(engine):
                self._unload(engine)
            case do.TellAssigned(leader_term, revision, outcomes):
                if self.dialling.session is not None:
                    self.dialling.session.assign_result(leader_term, revision, outcomes)
            case do.RunAttempt(key, engine):
                self._run_attempt(key, engine)
            case do.RejectAttempt(key, reason, message):
                self._orders.pop(key)[1].reject(reason, message)
            case do.ActuateGpu() | do.MoveAttempts():
                raise AssertionError(f"no owner of a simulated node has terms: {effect}")
            case do.TellStatus():
                self.dialling.report_soon()
            case _:
                assert_never(effect)

    # --- attempts -----------------------------------------------------------------------------------

    def ordered(self, key: AttemptKey, order: Order, sink: AttemptSink) -> None:
        """The coordinator wants an answer."""
        assert isinstance(sink, SessionSink), "orders come from a session"
        assert order.endpoint is not None
        if self.pretends_busy:
            sink.reject(Rejection.BUSY, "the engine's queue is full")
            return
        self._orders[key] = (order, sink)
        self.post(seen.AttemptAsked(self.now, key, order.model, order.endpoint))

    def cancelled(self, key: AttemptKey) -> None:
        """The coordinator wants an attempt stopped."""
        if running := self.running.get(key):
            running.cancel()

    def assigned(self, leader_term: int, revision: int, models: tuple[str, ...]) -> None:
        """The coordinator wants these models here."""
        self.post(seen.Assigned(self.now, leader_term, revision, models))

    def lost(self, session: Session) -> None:
        """A link ended: nobody waits for its attempts any more."""
        for key in session.open_attempts():
            self.cancelled(key)

    def _run_attempt(self, key: AttemptKey, engine: EngineId) -> None:
        order, sink = self._orders.pop(key)
        self.dialling.meter(sink)
        sink.accept()
        generation = self.running[key] = Generation(self.engines[engine], key, order, sink)
        self.engines[engine].submit(generation)

    def attempt_over(self, generation: Generation) -> None:
        """However it ended; a task that ends is heard of in the next turn."""
        self.later(0.0, partial(self._ended, generation.key))

    def _ended(self, key: AttemptKey) -> None:
        del self.running[key]
        self.post(seen.AttemptEnded(self.now, key))

    def _end_hung(self, engine: EngineId) -> None:
        self.engines[engine].stop()
        self._end_attempts(engine, Failed(Fault.ENGINE, "the engine stopped answering", code="engine_hung"))

    def _unload(self, engine: EngineId) -> None:
        self._end_attempts(engine, Failed(Fault.NODE, "the model is being unloaded", code="node_draining"))
        self.engines[engine].stop()

    def _end_attempts(self, engine: EngineId, why: Failed) -> None:
        for generation in [g for g in self.running.values() if g.engine_id == engine]:
            generation.fail(why)

    # --- what is told -------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """The link came up, went down or was refused."""
        self.post(seen.LinkChanged(self.now))

    def report(self) -> Report:
        """What the coordinator hears of this node."""
        self._report_sequence += 1
        state, reason = self.state.status()
        return Report(
            host=Host(name=self.node_id),
            status=Status(state, reason[:2_000]),
            engines=self.state.reports(self.now, int(self.now * 1000)),
            terms=Terms(models=tuple(engine.kind.model for engine in self.engines.values())),
            agent_version="0",
            sequence=self._report_sequence,
        )

    # --- the end ------------------------------------------------------------------------------------

    def drain(self, seconds: float, stopped: Callable[[], None]) -> None:
        """It was asked to stop: take nothing new, let run what runs for so long, then end."""
        self.leaves_at = self.now + max(seconds, HANDOVER_SECONDS_MIN)
        self.post(seen.DrainAsked(self.now))
        if self.dialling.session is not None:
            self.dialling.session.drain("the agent is stopping", seconds)
        self._stop_when_idle(self.leaves_at, stopped)

    def _stop_when_idle(self, until: float, stopped: Callable[[], None]) -> None:
        if self.running and self.now < until:
            self.later(0.05, partial(self._stop_when_idle, until, stopped))
        else:
            # Its last attempts' last words have left with this moment's batch.
            self.later(0.0, stopped)
