"""A request and its attempts.

    asked --accepted--> reading --first piece--> answering --last token--> closing --finish--> (gone)
      |                    |                         |                        |
      +--rejected / failed / lost / stalled / handed over: placed anew        +--lost: whole all the same
                           |
                           +--nowhere to go: waiting --a node is back--> asked
                                                 |
                                                 +--too long: failed

A request whose answer has begun to reach its caller goes on from the next token; any other begins anew. One that waits
long for its first token may be asked of a second node as well: whichever speaks first goes on, the other is cancelled.
Every in-between has a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from shrk_contract.terms import Endpoint, Pin, ResumeMethod
from shrk_coordinator.state.affinity import NO_AFFINITY, Affinity
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId, RequestId, StreamId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.served import Standing

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
    #: What is known of this model on this node.
    standing: Standing
    #: It shows whether an engine that kept failing is well again.
    probes: bool = False
    #: When its first piece went to the caller, and the index of its first token.
    spoke_at: float | None = None
    first_index: int = 0

    def accepted(self, now: float) -> None:
        """The node took it; its engine reads the prompt."""
        self.phase = Phase.READING
        # A whole answer shows nothing before its end, so only the request's own deadline can bound it.
        wait = FIRST_PIECE_SECONDS_MAX if self.request.streaming else REQUEST_SECONDS_MAX
        if self.resume is ResumeMethod.REPLAY:
            # It is silent for as long as it takes to say again what was said so far, on a slower engine longer.
            wait += REPLAY_SLOWNESS * (now - self.request.delivered_at)
        self.deadline = min(now + wait, self.request.deadline)

    def gave_way(self) -> None:
        """It ended without saying anything for or against its engine."""
        if self.probes:
            self.standing.breaker.gave_way(self.begun_at)

    def spoke(self, now: float, index: int) -> None:
        """Its first piece goes to the caller."""
        request = self.request
        self.spoke_at, self.first_index = now, index
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
        within = self.request.attempts < self.request.attempts_max and self.failures_after < FAILURES_MAX
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
    #: A second attempt, while neither has said anything.
    rival: Attempt | None = None
    #: It may wait in an engine's own queue, for its caller is being served already.
    queues: bool = False
    #: One of several answers to one request, and not the first.
    sibling: bool = False
    #: One token on behalf of a node's owner, to see whether one comes: asked of that node, once, and of no other.
    probe: bool = False
    #: Nodes that would not take it.
    rejections: int = 0
    #: Retries that it took from the budget.
    retries: int = 0
    #: Of what its caller sent: what crashes an engine is known by it.
    digest: bytes = b""
    #: What it shares with the other turns of its conversation.
    affinity: Affinity = NO_AFFINITY
    #: Something reached the caller that cannot be taken back; since when.
    delivered: bool = False
    delivered_at: float = 0.0
    #: Of the whole answer, once its last one is delivered.
    tokens: int = 0
    #: What the delivered part was generated with.
    pin: Pin = field(default_factory=Pin)
    #: While it waits for a node: until when, and what it lost, if anything.
    wait_until: float = 0.0
    lost: FailureDetail | None = None

    @property
    def exhausted(self) -> bool:
        """Whether another attempt would break a bound."""
        return self.attempts >= self.attempts_max or self.failures >= FAILURES_MAX

    @property
    def attempts_max(self) -> int:
        """How many nodes may be asked, all together."""
        return 1 if self.probe else ATTEMPTS_MAX
