"""An engine's life as the agent sees it.

starting -> loading -> online -> (ended) -> starting, after a backoff
               |
               +-> incompatible: it would end the same way again, so it is not started again
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_contract.terms import Endpoint, Pin, State
from shrk_node_agent.state.backoff import ENGINE
from shrk_node_agent.state.events import EngineBecameReady, EngineEnded, EngineId, EngineProgressed

#: An engine that stayed up this long had a good start: the next failure counts from one.
STEADY_SECONDS = 300.0


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
    #: Attempts under way in it.
    in_flight: int = 0
    #: When to start it; None while it runs or is not to be started.
    start_at: float | None = 0.0

    @property
    def load(self) -> float:
        """In-flight attempts per slot."""
        return self.in_flight / max(1, self.slots)

    def started(self, now: float) -> None:
        """Its process is being started."""
        self.start_at = None
        self._enter(now, State.STARTING, "")

    def progressed(self, event: EngineProgressed) -> bool:
        """It told how far it is; True where people should hear of it."""
        changed = (event.detail, event.progress) != (self.detail, self.progress)
        self.detail, self.progress = event.detail, event.progress
        if self.state is State.STARTING:
            # `since` stays: what a person waits for is one start, whatever its parts are called.
            self.state = State.LOADING
            changed = True
        return changed

    def became_ready(self, event: EngineBecameReady) -> None:
        """It takes work."""
        self.pin, self.endpoints = event.pin, event.endpoints
        self.slots, self.context_tokens = event.slots, event.context_tokens
        self.detail, self.progress = "", None
        self._enter(event.now, State.ONLINE, "")

    def ended(self, event: EngineEnded) -> None:
        """It is gone: start it again after a while, unless that is of no use."""
        steady = self.state is State.ONLINE and event.now - self.since > STEADY_SECONDS
        self.failures = 1 if steady else self.failures + 1
        self.detail, self.progress = "", None
        if event.incompatible:
            self._enter(event.now, State.INCOMPATIBLE, event.reason)
        else:
            self.start_at = event.now + ENGINE.steps(self.failures)
            self._enter(event.now, State.STARTING, event.reason)

    def _enter(self, now: float, state: State, reason: str) -> None:
        self.state, self.reason, self.since = state, reason, now
