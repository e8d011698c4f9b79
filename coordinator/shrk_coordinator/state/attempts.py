"""All requests under way and their attempts, as a registry: by request, by stream and by link."""

from __future__ import annotations

from collections import Counter

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.state.events import LinkId, RequestId, StreamId
from shrk_coordinator.state.request import ACCEPT_SECONDS_MAX, Attempt, Phase, Request
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.waiting import Waiting


class Attempts:
    """All requests under way, by request and by stream."""

    def __init__(self) -> None:
        self.requests: dict[RequestId, Request] = {}
        self.by_stream: dict[StreamId, Attempt] = {}
        #: Requests without an attempt.
        self.waiting = Waiting()
        self._by_link: dict[LinkId, set[StreamId]] = {}
        self._next_stream = 1

    def open(self, request: Request) -> None:
        """A request is under way."""
        assert request.request_id not in self.requests, "request ids are random 128-bit numbers"
        self.requests[request.request_id] = request

    def close(self, request: Request) -> None:
        """The request ended; its attempt must have been ended before."""
        assert request.current is None, "a request ends after its attempts"
        assert request.rival is None, "a request ends after its attempts"
        del self.requests[request.request_id]
        self.waiting.leave(request)

    def begin(
        self,
        now: float,
        request: Request,
        offer: Offer,
        resume: ResumeMethod | None = None,
        *,
        rival: bool = False,
    ) -> Attempt:
        """Record that a node is asked; `rival`: besides the one that is asked already."""
        assert request.rival is None, "one rival at a time"
        assert (request.current is not None) is rival, "one attempt at a time, and one rival"
        self.waiting.leave(request)
        request.attempts += 1
        attempt = Attempt(
            stream=self._next_stream,
            number=request.attempts,
            request=request,
            node_id=offer.node_id,
            link=offer.link,
            life=offer.life,
            pin=offer.engine.pin,
            resume=resume,
            phase=Phase.ASKED,
            begun_at=now,
            deadline=now + ACCEPT_SECONDS_MAX,
            standing=offer.standing,
        )
        self._next_stream += 1
        if rival:
            request.rival = attempt
        else:
            request.current = attempt
        self.by_stream[attempt.stream] = attempt
        self._by_link.setdefault(attempt.link, set()).add(attempt.stream)
        return attempt

    def end(self, attempt: Attempt) -> None:
        """Forget an attempt; where it had a rival, that goes on alone."""
        request = attempt.request
        if attempt is request.current:
            request.current = request.rival
        request.rival = None
        del self.by_stream[attempt.stream]
        streams = self._by_link[attempt.link]
        streams.discard(attempt.stream)
        if not streams:
            del self._by_link[attempt.link]

    def links(self) -> list[LinkId]:
        """Links with attempts under way."""
        return list(self._by_link)

    def on_link(self, link: LinkId) -> list[Attempt]:
        """Attempts under way on one link, oldest first."""
        return [self.by_stream[stream] for stream in sorted(self._by_link.get(link, ()))]

    def by_engine(self, link: LinkId | None) -> Counter[str]:
        """How many attempts are under way on one link, by engine, whatever its node still offers."""
        streams = self._by_link.get(link, ()) if link is not None else ()
        return Counter(self.by_stream[stream].life.engine for stream in streams)

    def overdue(self, now: float) -> list[Attempt]:
        """Attempts past their own deadline."""
        return [a for a in self.by_stream.values() if now > a.deadline]
