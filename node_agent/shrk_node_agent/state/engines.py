"""An engine's life as the agent sees it.

starting -> downloading -> loading -> online -> (ended) -> starting, after a backoff
               |              |         |          ^
               |              |         +-> ending-+  it hangs; takes nothing, and is shown as starting
               |              |
               +--------------+-> incompatible: it would end the same way again, or has come to no token
                                  BARREN_STARTS_MAX times in a row; started again when its owner asks

A download that fails is no fault of the engine: it is tried again for ever, after a backoff.

One that is not assigned any more is drained, then ended, and stays `paused` until it is assigned again.

`ending` is the driver's to finish: it stops the process, whose supervision tells of its end in any case.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from shrk_contract.terms import Endpoint, Pin, State
from shrk_node_agent.state.backoff import BARREN_STARTS_MAX, ENGINE
from shrk_node_agent.state.events import EngineBecameReady, EngineEnded, EngineId, EngineProgressed
from shrk_node_agent.state.liveness import Liveness, Load, Want
from shrk_node_agent.state.seats import ANYWHERE, Seat
from shrk_node_agent.state.terms.fit import OVERHEAD_BYTES
from shrk_node_agent.state.terms.occupancy import Ours
from shrk_node_agent.state.terms.permit import Permit

#: An engine that stayed up this long had a good start: the next failure counts from one.
STEADY_SECONDS = 300.0

#: What an engine still answers when it is to be unloaded may end within this; then it is moved elsewhere.
UNLOAD_SECONDS = 30.0

#: For the owner: why an engine is started anew.
HUNG = "The engine hung: no token came"
#: For the owner, before the last error: why an engine is left alone, and how it is tried again.
LEFT_ALONE = f"It came to no token {BARREN_STARTS_MAX} times in a row and is left alone"
RETRY_COMMAND = "shrk resume"


@dataclass(slots=True)
class EngineView:
    """One engine."""

    id: EngineId
    model: str
    state: State = State.STARTING
    reason: str = ""
    detail: str = ""
    progress: float | None = None
    #: When the present state began, monotonic seconds.
    since: float = 0.0
    pin: Pin = field(default_factory=Pin)
    endpoints: tuple[Endpoint, ...] = ()
    slots: int = 0
    context_tokens: int = 0
    failures: int = 0
    #: Starts in a row that came to no token.
    barren_starts: int = 0
    #: This life has given a token.
    bore: bool = False
    #: Counts its starts.
    life: int = 0
    #: Attempts under way in it.
    in_flight: int = 0
    #: From its first token to its end, or until it hangs.
    liveness: Liveness | None = None
    #: It hangs and is being ended; `ended` follows.
    ending: bool = False
    #: When to start it; None while it runs or is not to be started.
    start_at: float | None = 0.0
    #: It should be loaded.
    wanted: bool = True
    #: Why it is not wanted, for the owner; empty while it is.
    unwanted_why: str = ""
    #: While it drains because it is not wanted: when what it still answers is moved.
    unload_at: float | None = None
    #: Where it runs; None: it does not.
    seat: Seat | None = None
    #: What the owner's terms allow on its GPUs.
    permit: Permit = field(default_factory=Permit)
    #: Since when they allow that.
    permit_since: float = 0.0
    #: They want it ended.
    kept: bool = False

    @property
    def load(self) -> float:
        """In-flight attempts per slot."""
        return self.in_flight / max(1, self.slots)

    def permitted(self, now: float, permit: Permit) -> None:
        """What the owner's terms allow now."""
        if permit.state is not self.permit.state:
            self.permit_since = now
        self.permit = permit

    @property
    def gives_way(self) -> bool:
        """Whether it is to be ended: its owner wants the machine, and nothing is under way any more, or too long."""
        leaves = self.permit.state is State.PAUSED and self.permit.drain_by is not None and not self.in_flight
        return self.permit.stop or leaves

    @property
    def slots_allowed(self) -> int:
        """How many answers it may generate at once, as heat leaves them."""
        share = self.permit.slot_share
        return self.slots if share >= 1.0 else max(int(self.slots * share), 1 if share > 0 else 0)

    @property
    def loaded(self) -> bool:
        """Whether it takes memory."""
        return self.start_at is None and self.state not in (State.PAUSED, State.INCOMPATIBLE)

    def want(self, now: float) -> None:
        """It should be loaded."""
        self.wanted, self.unwanted_why = True, ""
        if self.unload_at is not None and self.ending:
            self.reason = ""  # It is started anew as soon as it has ended.
        elif self.unload_at is not None:
            self.unload_at = None
            self._enter(now, State.ONLINE if self.liveness is not None else State.STARTING, "")
        elif self.state is State.PAUSED:
            self.start_at = now
            self._enter(now, State.STARTING, "")

    def unwant(self, now: float, why: str) -> None:
        """It should be loaded no more."""
        self.wanted, self.unwanted_why = False, why
        if self.loaded and self.unload_at is None:
            self.unload_at = now + UNLOAD_SECONDS
            self._enter(now, State.DRAINING, why)
        elif not self.loaded and self.state is not State.INCOMPATIBLE:
            self.start_at = None
            self._enter(self.since if self.state is State.PAUSED else now, State.PAUSED, why)
        elif self.unload_at is not None:
            self.reason = why

    def keep_back(self, now: float, why: str) -> None:
        """Its owner wants the machine: it is ended at once."""
        self.unwant(now, why)
        if self.unload_at is not None:
            self.unload_at = now

    def unloads(self, now: float) -> bool:
        """Whether it is to be ended now; once."""
        if self.unload_at is None or self.ending or (self.in_flight and now < self.unload_at):
            return False
        self.ending, self.liveness = True, None
        return True

    def started(self, now: float, seat: Seat) -> None:
        """Its process is being started."""
        self.start_at, self.seat = None, seat
        self.life += 1
        self.bore = False
        self._enter(now, State.STARTING, "")

    def retry(self, now: float) -> bool:
        """Its owner wants it tried now; False where it runs, or is not wanted here."""
        waits = self.start_at is not None and now < self.start_at
        if self.state is not State.INCOMPATIBLE and not waits:
            return False
        self.failures = self.barren_starts = 0
        if self.wanted:
            self.start_at = now
            self._enter(now, State.STARTING, "")
        else:
            self._enter(now, State.PAUSED, self.unwanted_why)
        return True

    def progressed(self, event: EngineProgressed) -> bool:
        """It told how far it is; True where people should hear of it."""
        changed = (event.detail, event.progress) != (self.detail, self.progress)
        self.detail, self.progress = event.detail, event.progress
        step = State.DOWNLOADING if event.downloading else State.LOADING
        if self.state in (State.STARTING, State.DOWNLOADING) and self.state is not step and self.unload_at is None:
            if self.state is State.DOWNLOADING:
                self.failures = 0  # It has been fetched: how often that was tried says nothing about the engine.
            # `since` stays: what a person waits for is one start, whatever its parts are called.
            self.state = step
            changed = True
        return changed

    def became_ready(self, event: EngineBecameReady) -> None:
        """It takes work."""
        self.pin, self.endpoints = event.pin, event.endpoints
        self.slots, self.context_tokens = event.slots, event.context_tokens
        self.detail, self.progress = "", None
        self.liveness = Liveness.ready(event.now)
        self.bore, self.barren_starts = True, 0
        if self.unload_at is None:
            self._enter(event.now, State.ONLINE, "")

    def attempt_began(self, now: float) -> None:
        """It is asked for an answer."""
        if self.in_flight == 0 and self.liveness is not None:
            self.liveness.became_busy(now)
        self.in_flight += 1

    def attempt_ended(self) -> None:
        """An answer is over. No sign of life: most that end without a token are given up by others."""
        self.in_flight -= 1

    def tick(self, now: float) -> Want | None:
        """What its liveness asks for; after RESTART it is being ended."""
        if self.liveness is None:
            return None
        failures = 0 if self._steady(now) else self.failures
        want = self.liveness.tick(now, Load(self.in_flight, self.slots, failures))
        if want is Want.RESTART:
            self.failures = failures + 1
            self.ending, self.liveness = True, None
            self._enter(now, State.STARTING, HUNG)
        return want

    def ended(self, event: EngineEnded) -> None:
        """It is gone: start it again after a while, unless that is of no use."""
        # Of one that hung, the process tells that we stopped it, and perhaps what is left; it is counted already.
        reason = ". ".join(filter(None, (self.reason, event.reason))) if self.ending else event.reason
        if not self.ending:
            self.failures = 1 if self._steady(event.now) else self.failures + 1
        if not self.bore and not event.fetching and self.unload_at is None:
            self.barren_starts += 1
        self.detail, self.progress = "", None
        self.ending, self.liveness, self.unload_at, self.seat = False, None, None, None
        if not self.wanted:
            self.failures = 0
            self._enter(event.now, State.PAUSED, self.unwanted_why)
        elif event.incompatible:
            self._enter(event.now, State.INCOMPATIBLE, reason)
        elif self.barren_starts >= BARREN_STARTS_MAX:
            retry = f"Try again with `{RETRY_COMMAND}`"
            self._enter(event.now, State.INCOMPATIBLE, f"{LEFT_ALONE}. The last time: {reason}. {retry}")
        else:
            self.start_at = event.now + ENGINE.steps(self.failures)
            self._enter(event.now, State.STARTING, reason)

    def _steady(self, now: float) -> bool:
        return self.state is State.ONLINE and now - self.since > STEADY_SECONDS

    def _enter(self, now: float, state: State, reason: str) -> None:
        self.state, self.reason, self.since = state, reason, now


def ours_of(engines: Collection[EngineView], pids: Collection[int] | None) -> Ours:
    """What of a GPU is ours, of these engines that run there or will; `pids`: of all our engines, None: not told."""
    return Ours(
        pids,
        # What an engine takes beside its model is its own affair: where that was not said, all of it may be ours.
        sum((e.seat or ANYWHERE).bytes_taken + OVERHEAD_BYTES for e in engines if e.loaded),
        working=any(e.in_flight or (e.loaded and e.liveness is None) for e in engines),
    )
