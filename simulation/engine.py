"""A played engine: one process of a node that loads, generates in steps, hangs, slows down, crashes.

All running answers step together, as in a real one; those beyond its slots wait their turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shrk_contract.terms import Endpoint, Fault, Pin
from shrk_node_agent.attempts import Failed
from shrk_node_agent.state import events as seen
from simulation.clock import Action
from simulation.generation import Generation

if TYPE_CHECKING:
    from simulation.agent import Agent

#: From SIGTERM to the end of a process that hangs: then comes SIGKILL.
STOP_SECONDS_MAX = 1.0
#: What an agent makes of an engine's status 500.
INTERNAL_ERROR = Failed(Fault.ENGINE, "the engine answered 500", 500, code="internal_error")


@dataclass(frozen=True, slots=True)
class EngineKind:
    """What an engine is like for all its lives."""

    id: str
    model: str
    #: Equal hardware says equal things.
    hardware: int
    slots: int
    load_seconds: float
    prefill_seconds: float
    #: Between two steps.
    pace: float
    tells_ids: bool
    continues_by_ids: bool
    #: How an answer ended is told after its last token, not with it.
    ends_apart: bool

    @property
    def first_token_seconds(self) -> float:
        """How long its first token takes at most, while it has a slot free: it is said with the step after the read."""
        return self.prefill_seconds + 2.4 * self.pace

    @property
    def pin(self) -> Pin:
        """What engines share that go on for each other."""
        return Pin(engine="played", engine_version="1", model_revision=self.model, dtype=f"fp{32 >> self.hardware}")


class Engine:
    """One engine of one agent's life."""

    def __init__(self, agent: Agent, kind: EngineKind) -> None:
        self.kind = kind
        self.agent = agent
        #: Starts so far; what is due for an earlier life does not happen.
        self._life = 0
        #: There is a process; and it has loaded its model.
        self.alive = False
        self.up = False
        self.hung = False
        #: By how much its steps are slower than they should be.
        self.slowness = 1.0
        #: Answers that will break off at their next step; and whether each is answered with an error at once.
        self.quits = 0
        self.errs = False
        self.queue: list[Generation] = []
        #: As told in its figures: every token that it ever generated.
        self.tokens = 0
        #: Of its answers: pieces that came, and answers that wait for credit; and what was last told of both.
        self.pieces = self.held = 0
        self._told = (0, 0)
        self._stepping = False
        #: Counts the changes of its pace: a step that was due at another does not happen.
        self._paces = 0
        self._canary = False

    # --- its life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Its process is started; it is ready when its model is loaded."""
        self._life += 1
        self.alive = True
        seconds = self.kind.load_seconds * (0.5 + self.agent.world.rng.random())
        self._later(seconds / 2, self._progressed)
        self._later(seconds, self._ready)

    def _later(self, seconds: float, action: Action) -> None:
        life = self._life

        def in_this_life() -> None:
            if self._life == life:
                action()

        self.agent.later(seconds, in_this_life)

    def _progressed(self) -> None:
        self.agent.post(seen.EngineProgressed(self.agent.now, self.kind.id, "loading weights", 0.5))

    def _ready(self) -> None:
        self.up, self.hung, self.slowness, self.quits = True, False, 1.0, 0
        self._canary = False
        kind = self.kind
        endpoints = (Endpoint.CHAT_COMPLETIONS,)
        ready = seen.EngineBecameReady(self.agent.now, kind.id, kind.pin, endpoints, kind.slots, 4096)
        self.agent.post(ready)

    def crash(self, reason: str = "it was killed", by_itself: bool = False) -> None:
        """Its process ends. Its answers break off, and its supervision tells; which comes first is chance.

        `by_itself`: of what it read. Its agent knows that from how the process ended.
        """
        if by_itself:
            self.agent.crashed()
        self._life += 1
        self.alive = self.up = self._stepping = False
        rng = self.agent.world.rng
        broken, self.queue = self.queue, []
        for generation in broken:
            self.agent.later(rng.random() * 0.02, partial(generation.break_off, by_itself))
        self.agent.later(rng.random() * 0.05, partial(self._ended, reason))

    def _ended(self, reason: str) -> None:
        self.agent.post(seen.EngineEnded(self.agent.now, self.kind.id, reason, False))

    def stop(self) -> None:
        """The agent ends it: it hangs."""
        self._life += 1
        self.alive = self.up = self._stepping = False
        self.agent.later(self.agent.world.rng.random() * STOP_SECONDS_MAX, partial(self._ended, "it was ended"))

    # --- its work -----------------------------------------------------------------------------------

    def submit(self, generation: Generation) -> None:
        """An answer is asked for."""
        if not self.up:
            self.agent.later(0.0, generation.break_off)
            return
        if self.errs:
            self.agent.later(0.001, partial(generation.fail, INTERNAL_ERROR))
            return
        self.queue.append(generation)
        self.keep_stepping()

    def leave(self, generation: Generation) -> None:
        """An answer is over, or not wanted any more."""
        if generation in self.queue:
            self.queue.remove(generation)
            self.keep_stepping()

    def keep_stepping(self) -> None:
        """Have it step, where there is something to do."""
        if self._stepping or not self.up or self.hung:
            return
        if self._canary or any(not g.blocked for g in self.queue[: self.kind.slots]):
            self._stepping = True
            jitter = 0.8 + 0.4 * self.agent.world.rng.random()
            self._later(self.kind.pace * self.slowness * jitter, partial(self._step, self._paces))

    def _step(self, paces: int) -> None:
        if self.hung or paces != self._paces:
            return
        self._stepping = False
        for generation in self.queue[: self.kind.slots]:
            if not self.up:
                return  # One of them was its death.
            if not generation.blocked and not generation.over:
                if self.quits and generation.under_way:
                    self.quits -= 1
                    generation.quit(self.agent.world.rng.randrange(3))
                else:
                    generation.step()
        if self.up and self._canary and len(self.queue) < self.kind.slots:
            self._canary = False
            self.tokens += 1
            self.agent.post(seen.CanaryAnswered(self.agent.now, self.kind.id))
        self.keep_stepping()

    def hang(self) -> None:
        """Nothing comes any more, and its front end says that it is well."""
        self.hung = True
        self._new_pace()

    def go_on(self) -> None:
        """It does not hang after all, and is as fast as ever."""
        self.hung, self.slowness, self.quits, self.errs = False, 1.0, 0, False
        self._new_pace()
        self.keep_stepping()

    def _new_pace(self) -> None:
        self._paces += 1
        self._stepping = False

    # --- its pulse ----------------------------------------------------------------------------------

    def read_figures(self) -> None:
        """Its figures are asked for."""
        self._later(0.01, self._tell_figures)

    def _tell_figures(self) -> None:
        if self.up:
            self.agent.post(seen.FiguresRead(self.agent.now, self.kind.id, (str(self.tokens),)))

    def ask_canary(self) -> None:
        """One token is asked for."""
        self._canary = True
        self.keep_stepping()

    def moved(self) -> bool:
        """Whether anything came of its answers since this was last asked."""
        before, self._told = self._told, (self.pieces, self.held)
        return self._told != before
