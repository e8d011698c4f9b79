"""What the judge remembers of each request and of each attempt."""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_contract.terms import Pin
from shrk_coordinator.state.events import StreamId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.request import ATTEMPTS_MAX, FAILURES_MAX, Request
from shrk_coordinator.state.served import Offer
from simulation.asks import Ask
from simulation.reader import Ending
from simulation.site import Site


@dataclass(slots=True)
class Try:
    """One attempt, as the judge sees it."""

    stream: StreamId
    story: Story
    #: As it was when the attempt began.
    life: EngineLife
    pin: Pin
    offer: Offer
    site: Site
    begun_at: float
    #: When a piece of it was last accepted.
    spoke_at: float | None = None
    #: Its last token has come.
    closing: bool = False


@dataclass(slots=True)
class Story:
    """One request, as the judge sees it."""

    ask: Ask
    arrived_at: float
    #: Once the coordinator has heard of it.
    request: Request | None = None
    current: Try | None = None
    #: The second of two that run at once.
    rival: Try | None = None
    #: Attempts so far, and those of them that came to nothing since the last that brought a token.
    attempts: int = 0
    failures: int = 0
    #: Nodes that would not take it.
    rejections: int = 0
    #: Retries that it has taken from what all requests have saved up; and whether it was to have none.
    retries: int = 0
    denied: bool = False
    #: Since when no node has been asked for it.
    waits_since: float | None = None
    #: What the delivered part was generated with.
    pins: set[Pin] = field(default_factory=set)
    #: When it last lost an attempt; the engines that failed it, and when it left others that may yet be well.
    lost_at: float = 0.0
    failed_on: set[EngineLife] = field(default_factory=set)
    left: dict[EngineLife, float] = field(default_factory=dict)
    #: The coordinator has said that it ends, and how; what came of it for the caller.
    over: bool = False
    due: Ending = Ending.LEFT
    ending: Ending | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """As a violation calls it."""
        return f"request {self.ask.number} ({self.ask.kind.value}, {self.ask.request_id.hex()[:12]})"

    @property
    def tries(self) -> list[Try]:
        """Its attempts under way."""
        return [attempt for attempt in (self.current, self.rival) if attempt is not None]

    @property
    def exhausted(self) -> bool:
        """Whether another attempt would break a bound."""
        return self.attempts >= ATTEMPTS_MAX or self.failures >= FAILURES_MAX

    def begins(self, attempt: Try, *, rival: bool) -> None:
        """A node is asked."""
        self.attempts += 1
        self.waits_since = None
        if rival:
            self.rival = attempt
        else:
            self.current = attempt

    def drops(self, attempt: Try, now: float) -> None:
        """An attempt is over; where there are two, the other goes on alone."""
        assert attempt in self.tries, f"{self.name}: an attempt ended twice"
        if attempt is self.current:
            self.current = self.rival
        self.rival = None
        if self.current is None:
            self.waits_since = now
