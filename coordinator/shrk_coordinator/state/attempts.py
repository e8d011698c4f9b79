"""Requests and their attempts.

    asked --accepted--> reading --first piece--> answering --finish--> (gone)
      |                    |                         |
      +--rejected/failed/lost: another node, up to ATTEMPTS_MAX      failed/lost: the request fails

Every in-between has a deadline: an attempt that is not accepted in time, or does not begin to answer in
time, is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from shrk_contract.terms import Endpoint
from shrk_coordinator.state.events import LinkId, NodeId, RequestId, StreamId

#: A node answers `start` from memory; a second is a bad link, five are a lost node.
ACCEPT_SECONDS_MAX = 5.0
#: The longest prefill worth waiting for: a full context on a slow home GPU.
FIRST_PIECE_SECONDS_MAX = 300.0
#: The longest life of one request. Official SDKs give up after 10 minutes unless told otherwise.
REQUEST_SECONDS_MAX = 3600.0
#: One request may cost the network this many attempts, whatever happens.
ATTEMPTS_MAX = 8
#: Re-placements in a row after a failure that brought no token: beyond this the request is likelier at fault.
FAILURES_MAX = 3


class Phase(Enum):
    """Where an attempt is."""

    ASKED = auto()
    READING = auto()
    ANSWERING = auto()


@dataclass(slots=True)
class Attempt:
    """One node asked once for one request."""

    stream: StreamId
    number: int
    request: Request
    node_id: NodeId
    link: LinkId
    phase: Phase
    deadline: float


@dataclass(slots=True)
class Request:
    """What a caller asked, while it is under way."""

    request_id: RequestId
    model: str
    endpoint: Endpoint
    streaming: bool
    deadline: float
    #: Nodes that are not asked again for this request.
    tried: set[NodeId] = field(default_factory=set)
    attempts: int = 0
    failures: int = 0
    current: Attempt | None = None

    @property
    def delivered(self) -> bool:
        """Whether something reached the caller that cannot be taken back."""
        return self.current is not None and self.current.phase is Phase.ANSWERING

    @property
    def exhausted(self) -> bool:
        """Whether another attempt would break a bound."""
        return self.attempts >= ATTEMPTS_MAX or self.failures >= FAILURES_MAX


class Attempts:
    """All requests under way, by request and by stream."""

    def __init__(self) -> None:
        self.requests: dict[RequestId, Request] = {}
        self.by_stream: dict[StreamId, Attempt] = {}
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

    def begin(self, now: float, request: Request, node_id: NodeId, link: LinkId) -> Attempt:
        """Record that a node is asked."""
        assert request.current is None, "one attempt at a time"
        request.attempts += 1
        attempt = Attempt(
            stream=self._next_stream,
            number=request.attempts,
            request=request,
            node_id=node_id,
            link=link,
            phase=Phase.ASKED,
            deadline=now + ACCEPT_SECONDS_MAX,
        )
        self._next_stream += 1
        request.current = attempt
        self.by_stream[attempt.stream] = attempt
        self._by_link.setdefault(link, set()).add(attempt.stream)
        return attempt

    def end(self, attempt: Attempt) -> None:
        """Forget an attempt."""
        attempt.request.current = None
        del self.by_stream[attempt.stream]
        streams = self._by_link[attempt.link]
        streams.discard(attempt.stream)
        if not streams:
            del self._by_link[attempt.link]

    def on_link(self, link: LinkId) -> list[Attempt]:
        """Attempts under way on one link, oldest first."""
        return [self.by_stream[stream] for stream in sorted(self._by_link.get(link, ()))]

    def overdue(self, now: float) -> list[Attempt]:
        """Attempts past their own deadline."""
        return [a for a in self.by_stream.values() if now > a.deadline]
