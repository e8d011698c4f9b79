"""The driver: takes events to the state, and carries out the effects. It owns the clock, engines and attempts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import assert_never

import structlog

from shrk_contract.batching import PeerNotReading
from shrk_contract.terms import Fault, Rejection
from shrk_contract.turns import Turns
from shrk_node_agent.attempts import AttemptSink, Failed, Order
from shrk_node_agent.engine import crash
from shrk_node_agent.engine.engine import (
    EngineEvent,
    EngineExited,
    EngineLoading,
    EngineProcess,
    EngineReady,
    EngineSpec,
    StartEngine,
)
from shrk_node_agent.engine.exchange import EngineClient
from shrk_node_agent.engine.pulse import Pulse, Totals
from shrk_node_agent.sensors import gpu
from shrk_node_agent.sensors.gpu import Gpus, SensorsFailed
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.events import AttemptKey, EngineId, Event
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from shrk_node_agent.state.seats import Seat
from shrk_node_agent.state.terms.actuators import Abilities, Rung

#: Cards warm up by a degree or two in that time; reading them costs some milliseconds.
READ_SECONDS = 1.0
#: Restarts, and the deadlines of an engine that says nothing, are seconds apart.
TICK_SECONDS = 0.25
#: An engine gets this long to end by itself; vLLM needs a third of a second.
ENGINE_STOP_SECONDS = 10.0
#: One that hangs gets this long: what still hears SIGTERM needs no more, and a stopped process yields to SIGKILL only.
HUNG_STOP_SECONDS = 1.0

log = structlog.get_logger("shrk.agent")


@dataclass(slots=True)
class _Running:
    """An attempt under way."""

    engine: EngineId
    sink: AttemptSink
    task: asyncio.Task[None]


class Driver:
    """One per agent. All methods run in the event loop."""

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        start_engine: StartEngine,
        changed: Callable[[], None],
        assigned: Callable[[do.TellAssigned], None] = lambda told: None,
        turned: Callable[[float], None] = lambda now: None,
        state: NodeState | None = None,
    ) -> None:
        """`specs`: all that may have to be started. `changed` hears whenever coordinators or people should be told,
        `assigned` what became of an assignment, `turned` every tick. `state`: what the owner wants; None: all `specs`,
        always."""
        self._turned = turned
        self.state = state or NodeState(Need(spec.id, spec.model, spec.memory_bytes) for spec in specs)
        self._gpus: Gpus | None = None
        self._assigned = assigned
        self.processes: dict[EngineId, EngineProcess] = {}
        #: The last lines of engines that ended, for people.
        self.tails: dict[EngineId, tuple[str, ...]] = {}
        self.totals = Totals()
        self._specs = {spec.id: spec for spec in specs}
        self._start_engine = start_engine
        self._changed = changed
        self._clients: dict[EngineId, EngineClient] = {}
        self._pulses: dict[EngineId, Pulse] = {}
        #: The last start of each engine.
        self._starts: dict[EngineId, asyncio.Task[None]] = {}
        self._orders: dict[AttemptKey, tuple[Order, AttemptSink]] = {}
        self._running: dict[AttemptKey, _Running] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._turns = Turns(self._take)
        self._idle = asyncio.Event()
        self._idle.set()

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def source(self, engine: EngineId) -> str:
        """Where it has its weights from, as `EngineSpec.source`: what the catalogue said when the agent started."""
        return self._specs[engine].source

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            # What passes through answers is counted where it passes, and told here: once a tick, not once a piece.
            for engine, pulse in list(self._pulses.items()):
                if pulse.moved():
                    self.post(seen.AnswersMoved(self.now(), engine, pulse.held))
            self.post(seen.Tick(self.now(), datetime.now(UTC)))
            self._turned(self.now())
            await asyncio.sleep(TICK_SECONDS)

    async def watch(self, gpus: Gpus, *, contained: bool = False) -> None:
        """Read the GPUs once a second until cancelled. A reading that does not come is told: what is unseen is hot.

        `contained`: in a container, where drivers tell the numbers of the host's processes.
        """
        self._gpus = gpus
        while True:
            try:
                readings = await gpus.read()
            except SensorsFailed as failed:
                self.post(seen.SensorsFailed(self.now(), str(failed)))
            else:
                abilities = {reading.uuid: _abilities(gpus.abilities(reading.uuid)) for reading in readings}
                self.post(seen.SensorsRead(self.now(), readings, abilities, None if contained else self._pids()))
            await asyncio.sleep(READ_SECONDS)

    def _pids(self) -> frozenset[int]:
        return frozenset(pid for process in self.processes.values() for pid in process.pids())

    def post(self, event: Event) -> None:
        """Take in one fact and carry out what follows from it."""
        self._turns.post(event)

    def _take(self, event: Event) -> None:
        for effect in self.state.handle(event):
            self._carry_out(effect)

    # --- attempts ------------------------------------------------------------------------------------

    def ordered(self, key: AttemptKey, order: Order, sink: AttemptSink) -> None:
        """A coordinator wants an answer."""
        self._orders[key] = (order, sink)
        self.post(seen.AttemptAsked(self.now(), key, order.model, order.endpoint))

    def cancelled(self, key: AttemptKey) -> None:
        """A coordinator wants an attempt stopped: closing its connection makes the engine abort it."""
        if running := self._running.get(key):
            running.task.cancel()

    def assign(self, leader_term: int, revision: int, models: tuple[str, ...]) -> None:
        """A coordinator wants these models here."""
        self.post(seen.Assigned(self.now(), leader_term, revision, models))

    def link_changed(self) -> None:
        """The link came up, went down or was refused."""
        self.post(seen.LinkChanged(self.now()))

    def drain(self) -> None:
        """Take nothing new."""
        self.post(seen.DrainAsked(self.now()))

    async def drained(self) -> None:
        """Return once no attempt is under way."""
        await self._idle.wait()

    def _run(self, effect: do.RunAttempt) -> None:
        order, sink = self._orders.pop(effect.key)
        sink.accept()
        watched = self._pulses[effect.engine].watch(order, sink)
        process = self.processes[effect.engine]

        async def explain(failed: Failed) -> Failed:
            # Of a token that was given on the caller knows: then the engine did not crash of reading the request.
            return failed if watched.spoke else await crash.explained(failed, process.crash)

        answering = self._clients[effect.engine].answer(order, watched, explain)
        task = asyncio.create_task(answering, name=f"attempt-{effect.key}")
        self._running[effect.key] = _Running(effect.engine, watched, task)
        self._idle.clear()

        def ended(task: asyncio.Task[None]) -> None:
            del self._running[effect.key]
            if not self._running:
                self._idle.set()
            self.post(seen.AttemptEnded(self.now(), effect.key))
            if not task.cancelled() and (error := task.exception()):
                log.error("attempt failed by our own fault", exc_info=error)
                # Unheard of, it would keep the caller waiting until the coordinator's own deadline.
                watched.fail(Failed(Fault.NODE, "the agent failed on this attempt", code="agent_error"))

        task.add_done_callback(ended)

    def _reject(self, key: AttemptKey, reason: Rejection, message: str) -> None:
        _, sink = self._orders.pop(key)
        sink.reject(reason, message)

    # --- engines -------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case do.StartEngine(engine, seat):
                spec = seated(self._specs[engine], seat)
                self._starts[engine] = self._in_background(self._start(spec), f"start-{engine}")
            case do.ReadFigures(engine):
                self._pulses[engine].read_figures()
            case do.AskCanary(engine):
                self._pulses[engine].ask_canary()
            case do.RestartEngine(engine, reason):
                self._end_hung(engine, reason)
            case do.UnloadEngine(engine):
                self._unload(engine)
            case do.TellAssigned():
                self._assigned(effect)
            case do.RunAttempt():
                self._run(effect)
            case do.ActuateGpu():
                self._in_background(self._actuate(effect), f"actuate-{effect.uuid}")
            case do.MoveAttempts(keys, reason):
                log.info("answers are handed on", answers=len(keys), why=reason)
                # It may be read by a caller, whom an owner's temperatures and programs do not concern.
                self._end_attempts(keys, Failed(Fault.NODE, "its owner's terms end it there", code="node_draining"))
            case do.RejectAttempt(key, reason, message):
                self._reject(key, reason, message)
            case do.TellStatus():
                self._changed()
            case _:
                assert_never(effect)

    async def _start(self, spec: EngineSpec) -> None:
        def on_event(event: EngineEvent) -> None:
            self._engine_event(spec, event)

        self.processes[spec.id] = await self._start_engine(spec, on_event)

    def _engine_event(self, spec: EngineSpec, event: EngineEvent) -> None:
        now = self.now()
        match event:
            case EngineLoading(detail, progress, _, downloading):
                self.post(seen.EngineProgressed(now, spec.id, detail, progress, downloading))
            case EngineReady(pin, endpoints, slots, context_tokens):
                log.info("engine ready", model=spec.model)
                socket = self.processes[spec.id].socket
                self._clients[spec.id] = EngineClient(socket, runner=pin.runner)
                self._pulses[spec.id] = Pulse(
                    spec,
                    socket,
                    endpoints,
                    on_figures=lambda figures: self.post(seen.FiguresRead(self.now(), spec.id, figures)),
                    on_token=lambda: self.post(seen.CanaryAnswered(self.now(), spec.id)),
                    totals=self.totals,
                )
                self.post(seen.EngineBecameReady(now, spec.id, pin, endpoints, slots, context_tokens))
            case EngineExited(returncode, tail, incompatible, reason, fetching):
                log.warning("engine ended", model=spec.model, returncode=returncode, why=reason)
                self.tails[spec.id] = tail
                self._stop_pulse(spec.id)
                if client := self._clients.pop(spec.id, None):
                    self._in_background(client.close(), f"close-{spec.id}")
                self.post(seen.EngineEnded(now, spec.id, reason, incompatible, fetching))
            case _:
                assert_never(event)

    def _end_hung(self, engine: EngineId, reason: str) -> None:
        """Let go of an engine that hangs. Its process tells of its own end, in any case, and that starts it again."""
        log.error("ending an engine", model=self._specs[engine].model, why=reason)
        self._stop_pulse(engine)
        self._in_background(self.processes[engine].stop(HUNG_STOP_SECONDS), f"end-{engine}")
        self._end_attempts(self._of(engine), Failed(Fault.ENGINE, "the engine stopped answering", code="engine_hung"))

    def _of(self, engine: EngineId) -> Sequence[AttemptKey]:
        return [key for key, running in self._running.items() if running.engine == engine]

    def _end_attempts(self, keys: Sequence[AttemptKey], why: Failed) -> None:
        for key in keys:
            if running := self._running.get(key):
                # Where nobody reads the link, its own end tells of all its attempts.
                with contextlib.suppress(PeerNotReading):
                    running.sink.fail(why)
                running.task.cancel()

    def _unload(self, engine: EngineId) -> None:
        """End an engine that is not wanted any more; what it still answers goes on elsewhere."""
        log.info("unloading a model", model=self._specs[engine].model)
        self._stop_pulse(engine)
        unloaded = Failed(Fault.NODE, "the model is being unloaded", code="node_draining")
        self._end_attempts(self._of(engine), unloaded)
        self._in_background(self._end_started(engine), f"unload-{engine}")

    async def _end_started(self, engine: EngineId) -> None:
        # A start under way must be over before its process can be stopped.
        await asyncio.wait([self._starts[engine]])
        await self.processes[engine].stop(ENGINE_STOP_SECONDS)

    def _stop_pulse(self, engine: EngineId) -> None:
        if pulse := self._pulses.pop(engine, None):
            pulse.stop()

    async def _actuate(self, wish: do.ActuateGpu) -> None:
        assert self._gpus is not None, "only a GPU that was read is set"
        if wish.rung is Rung.POWER_LIMIT:
            done = await self._gpus.set_power_limit(wish.uuid, wish.value)
        else:
            done = await self._gpus.set_target_temperature(wish.uuid, wish.value)
        if not done.confirmed:
            log.warning("a GPU was not set", gpu=wish.uuid, what=wish.rung.name.lower(), why=done.reason)
        self.post(seen.GpuActuated(self.now(), wish.uuid, wish.rung, done.confirmed))

    def _in_background(self, work: object, name: str) -> asyncio.Task[None]:
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work, name=name)
        self._background.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()):
                log.error("background work failed", task=name, exc_info=error)

        task.add_done_callback(ended)
        return task

    async def stop(self) -> None:
        """End all attempts and engines; returns when nothing of them is left."""
        for running in list(self._running.values()):
            running.task.cancel()
        for pulse in self._pulses.values():
            pulse.stop()
        # A start under way must be over before its process can be stopped.
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*(p.stop(ENGINE_STOP_SECONDS) for p in self.processes.values()))
        for client in self._clients.values():
            await client.close()


def seated(spec: EngineSpec, seat: Seat) -> EngineSpec:
    """The specification with its GPUs, and its part of them."""
    if not seat.devices:
        return spec
    spread = len(seat.devices)
    return replace(
        spec,
        devices=seat.devices,
        tensor_parallel=spread,
        memory_bytes=seat.bytes_each * spread,
        device_memory_bytes=seat.device_bytes,
    )


def _abilities(told: gpu.Abilities) -> Abilities:
    """As the terms reckon with them."""
    watts, target = told.power_limit, told.target_temperature
    return Abilities(
        target_temperature=target is not None,
        power_limit=watts is not None,
        watts_min=watts.minimum if watts else 0.0,
        watts_max=watts.maximum if watts else 0.0,
        target_min=target.minimum if target else 0.0,
        target_max=target.maximum if target else 0.0,
    )
