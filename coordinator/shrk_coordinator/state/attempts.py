"""Requests and their attempts.

    asked --accepted--> reading --first piece--> answering --last token--> closing --finish--> (gone)
      |                    |                         |                        |
      +--rejected / failed / lost / stalled / handed over: placed anew        +--lost: whole all the same
                           |
                           +--nowhere to go: waiting --a node is back--> asked
                                                 |
                                                 +--too long: failed

A request whose answer has begun to reach its caller goes on from the next token; any other begins anew. Every
in-between has a deadline.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

from shrk_contract.terms import Endpoint, Pin, ResumeMethod
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId, RequestId, StreamId
from shrk_coordinator.state.roster import EngineLife

#: A node answers `start` from memory; a second is a bad link, five are a lost node.
ACCEPT_SECONDS_MAX = 5.0
#: The longest prefill worth waiting for: a full context on a slow home GPU.
FIRST_PIECE_SECONDS_MAX = 300.0
#: The longest life of one request. Official SDKs give up after 10 minutes unless told otherwise.
REQUEST_SECONDS_MAX = 3600.0
#: A replay may take this many times as long as what it repeats took.
REPLAY_SLOWNESS = 3.0
#: Between the last token and the finish that follows it at once: beyond this the answer is ended without it.
FINISH_SECONDS_MAX = 5.0
#: One request may cost the network this many attempts, whatever happens.
ATTEMPTS_MAX = 8
#: Attempts in a row that brought no token: beyond this the request is likelier at fault.
FAILURES_MAX = 3
#: A request that lost its node and finds no other waits this long for one: a link is dialled anew within a second,
#: an engine that crashed is back within a few.
WAIT_SECONDS_MAX = 10.0
#: Requests per model that wait without having begun to answer; those that have are never turned away.
WAITING_MAX = 64


class Phase(Enum):
    """Where an attempt is."""

    ASKED = auto()
    READING = auto()
    ANSWERING = auto()
    CLOSING = auto()


@dataclass(slots=True)
class Attempt:
    """One node asked once for one request."""

    stream: StreamId
    number: int
    request: Request
    node_id: NodeId
    link: LinkId
    life: EngineLife
    pin: Pin
    resume: ResumeMethod | None
    phase: Phase
    begun_at: float
    deadline: float

    def accepted(self, now: float) -> None:
        """The node took it; its engine reads the prompt."""
        self.phase = Phase.READING
        # A whole answer shows nothing before its end, so only the request's own deadline can bound it.
        wait = FIRST_PIECE_SECONDS_MAX if self.request.streaming else REQUEST_SECONDS_MAX
        if self.resume is ResumeMethod.REPLAY:
            # It is silent for as long as it takes to say again what was said so far, on a slower engine longer.
            wait += REPLAY_SLOWNESS * (now - self.request.delivered_at)
        self.deadline = min(now + wait, self.request.deadline)

    def spoke(self, now: float) -> None:
        """Its first piece goes to the caller."""
        request = self.request
        self.phase, self.deadline = Phase.ANSWERING, request.deadline
        # The ids before a seam between unlike engines are another kind's.
        request.by_ids &= not request.delivered or self.pin == request.pin
        request.delivered_at = request.delivered_at if request.delivered else now
        request.delivered, request.failures, request.pin = True, 0, self.pin

    @property
    def failures_after(self) -> int:
        """Attempts in a row without a token, were this one to end now: one that got as far shows that the request is
        not at fault."""
        return 0 if self.phase is Phase.ANSWERING else self.request.failures + 1

    @property
    def movable(self) -> bool:
        """Whether another attempt may take its place: the answer is not whole, and no bound would be broken."""
        within = self.request.attempts < ATTEMPTS_MAX and self.failures_after < FAILURES_MAX
        return within and self.phase is not Phase.CLOSING


@dataclass(slots=True)
class Request:
    """What a caller asked, while it is under way."""

    request_id: RequestId
    model: str
    endpoint: Endpoint
    #: The answer goes out as it comes; else nothing is delivered before its end.
    streaming: bool
    deadline: float
    #: Whether it may go on from token ids, as far as is known.
    by_ids: bool = False
    #: Engines that failed this request, and are not asked again.
    tried: set[EngineLife] = field(default_factory=set)
    #: Engines that it left or that would not take it, and when: asked again where there is no other.
    left: dict[EngineLife, float] = field(default_factory=dict)
    attempts: int = 0
    #: Attempts in a row that brought no token.
    failures: int = 0
    current: Attempt | None = None
    #: Something reached the caller that cannot be taken back; since when.
    delivered: bool = False
    delivered_at: float = 0.0
    #: Of the whole answer, once its last one is delivered.
    tokens: int = 0
    #: What the delivered part was generated with.
    pin: Pin = field(default_factory=Pin)
    #: While it waits for a node: until when, and what it lost.
    wait_until: float = 0.0
    lost: FailureDetail | None = None

    @property
    def exhausted(self) -> bool:
        """Whether another attempt would break a bound."""
        return self.attempts >= ATTEMPTS_MAX or self.failures >= FAILURES_MAX


class Attempts:
    """All requests under way, by request and by stream."""

    def __init__(self) -> None:
        self.requests: dict[RequestId, Request] = {}
        self.by_stream: dict[StreamId, Attempt] = {}
        #: Requests without an attempt, in the order in which they came to wait.
        self.waiting: dict[RequestId, Request] = {}
        self._by_link: dict[LinkId, set[StreamId]] = {}
        self._next_stream = 1

    def open(self, request: Request) -> None:
        """A request is under way."""
        assert request.request_id not in self.requests, "request ids are random 128-bit numbers"
        self.requests[request.request_id] = request

    def close(self, request: Request) -> None:
        """The request ended; its attempt must have been ended before."""
        assert request.current is None, "a request ends after its attempt"
        del self.requests[request.request_id]
        self.waiting.pop(request.request_id, None)

    def begin(
        self,
        now: float,
        request: Request,
        node_id: NodeId,
        life: EngineLife,
        pin: Pin,
        resume: ResumeMethod | None = None,
    ) -> Attempt:
        """Record that a node is asked."""
        assert request.current is None, "one attempt at a time"
        self.waiting.pop(request.request_id, None)
        request.attempts += 1
        attempt = Attempt(
            stream=self._next_stream,
            number=request.attempts,
            request=request,
            node_id=node_id,
            link=life.link,
            life=life,
            pin=pin,
            resume=resume,
            phase=Phase.ASKED,
            begun_at=now,
            deadline=now + ACCEPT_SECONDS_MAX,
        )
        self._next_stream += 1
        request.current = attempt
        self.by_stream[attempt.stream] = attempt
        self._by_link.setdefault(attempt.link, set()).add(attempt.stream)
        return attempt

    def end(self, attempt: Attempt) -> None:
        """Forget an attempt."""
        attempt.request.current = None
        del self.by_stream[attempt.stream]
        streams = self._by_link[attempt.link]
        streams.discard(attempt.stream)
        if not streams:
            del self._by_link[attempt.link]

    def wait(self, now: float, request: Request, lost: FailureDetail) -> bool:
        """Let a request wait for a node; False where too many do."""
        if not request.delivered:
            queued = Counter(r.model for r in self.waiting.values() if not r.delivered)
            if queued[request.model] >= WAITING_MAX:
                return False
        request.wait_until, request.lost = min(now + WAIT_SECONDS_MAX, request.deadline), lost
        self.waiting[request.request_id] = request
        return True

    def links(self) -> list[LinkId]:
        """Links with attempts under way."""
        return list(self._by_link)

    def on_link(self, link: LinkId) -> list[Attempt]:
        """Attempts under way on one link, oldest first."""
        return [self.by_stream[stream] for stream in sorted(self._by_link.get(link, ()))]

    def overdue(self, now: float) -> list[Attempt]:
        """Attempts past their own deadline."""
        return [a for a in self.by_stream.values() if now > a.deadline]
