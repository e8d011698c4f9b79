"""The one door: `CoordinatorState.handle(event) -> effects`.

It composes the roster, placement and the attempts. Pieces of answers never pass here, only transitions do:
asked, accepted, first piece, finished, failed, lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from shrk_contract.terms import Fault
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.attempts import (
    FIRST_PIECE_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
    Attempt,
    Attempts,
    Phase,
    Request,
)
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, FailureDetail
from shrk_coordinator.state.placement import NotThatKind, Nowhere, Placed, place
from shrk_coordinator.state.roster import Node, Roster


class CoordinatorState:
    """All that the coordinator knows and decides. Change it only through `handle`."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.attempts = Attempts()

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in one fact; return what the world should do about it, in order."""
        match event:
            case seen.NodeHello():
                return self._hello(event)
            case seen.NodeReported(now, node_id, link, report):
                if node := self._linked(node_id, link):
                    self.roster.report(now, node, report)
                return []
            case seen.NodeHeard(now, node_id, link):
                if node := self._linked(node_id, link):
                    node.heard_at = now
                return []
            case seen.NodeDraining(now, node_id, link):
                if node := self._linked(node_id, link):
                    node.draining, node.heard_at = True, now
                return []
            case seen.LinkClosed(now, node_id, link, reason):
                return self._link_lost(now, node_id, link, reason)
            case seen.RequestArrived():
                return self._arrived(event)
            case seen.AttemptAccepted(now, stream):
                return self._accepted(now, stream)
            case seen.AttemptRejected(now, stream, _):
                return self._rejected(now, stream)
            case seen.FirstPieceDelivered(_, stream):
                return self._first_piece(stream)
            case seen.AttemptFinished(_, stream):
                return self._finished(stream)
            case seen.AttemptFailed(now, stream, failure):
                return self._failed(now, stream, failure)
            case seen.AttemptBroken(now, stream, failure):
                return self._broken(now, stream, failure)
            case seen.CallerLeft(_, request_id):
                return self._caller_left(request_id)
            case seen.Tick(now):
                return self._tick(now)
            case _:
                assert_never(event)

    # --- nodes -----------------------------------------------------------------------------------

    def _linked(self, node_id: seen.NodeId, link: seen.LinkId) -> Node | None:
        """The node, if this is still its link; frames of a replaced link change nothing."""
        node = self.roster.nodes.get(node_id)
        return node if node is not None and node.link == link else None

    def _hello(self, event: seen.NodeHello) -> list[Effect]:
        known = self.roster.nodes.get(event.node_id)
        effects: list[Effect] = []
        if known is not None and known.link is not None:
            if event.incarnation < known.incarnation:
                return [do.CloseLink(event.link, do.Superseded())]
            old = known.link
            effects.append(do.CloseLink(old, do.Superseded()))
            effects += self._link_lost(event.now, event.node_id, old, "the node dialled again")
        self.roster.link(event.now, event.node_id, event.link, event.incarnation, event.owner)
        return [*effects, do.WelcomeNode(event.node_id, event.link)]

    def _link_lost(self, now: float, node_id: seen.NodeId, link: seen.LinkId, reason: str) -> list[Effect]:
        node = self._linked(node_id, link)
        if node is None:
            return []
        self.roster.unlink(node)
        effects: list[Effect] = []
        for attempt in self.attempts.on_link(link):
            lost = FailureDetail(Fault.NODE, f"the node was lost: {reason}", code="node_lost")
            effects += self._attempt_over(now, attempt, lost)
        return effects

    # --- requests --------------------------------------------------------------------------------

    def _arrived(self, event: seen.RequestArrived) -> list[Effect]:
        if not self.roster.knows(event.model):
            unknown = do.UnknownModel(event.model, self.roster.nearest(event.model))
            return [do.RefuseRequest(event.request_id, unknown)]
        request = Request(
            request_id=event.request_id,
            model=event.model,
            endpoint=event.endpoint,
            streaming=event.streaming,
            deadline=event.now + REQUEST_SECONDS_MAX,
        )
        self.attempts.open(request)
        return self._place(event.now, request)

    def _place(self, now: float, request: Request) -> list[Effect]:
        placement = place(self.roster, request.model, request.endpoint, request.tried)
        match placement:
            case Placed(node, offer):
                assert node.link is not None, "only linked nodes offer models"
                attempt = self.attempts.begin(now, request, node.node_id, node.link)
                offer.in_flight += 1
                offer.placed += 1
                start = do.StartAttempt(request.request_id, attempt.number, attempt.stream, node.node_id, node.link)
                return [start]
            case NotThatKind(served):
                self.attempts.close(request)
                wrong = do.WrongEndpoint(request.model, request.endpoint, served)
                return [do.RefuseRequest(request.request_id, wrong)]
            case Nowhere(counts):
                self.attempts.close(request)
                return [do.RefuseRequest(request.request_id, do.NoNode(request.model, counts))]
            case _:
                assert_never(placement)

    def _accepted(self, now: float, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None or attempt.phase is not Phase.ASKED:
            return []
        attempt.phase = Phase.READING
        # A whole answer shows nothing before its end, so only the request's own deadline can bound it.
        wait = FIRST_PIECE_SECONDS_MAX if attempt.request.streaming else REQUEST_SECONDS_MAX
        attempt.deadline = min(now + wait, attempt.request.deadline)
        return []

    def _first_piece(self, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is not None:
            attempt.phase = Phase.ANSWERING
            attempt.deadline = attempt.request.deadline
        return []

    def _rejected(self, now: float, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        if attempt.phase is not Phase.ASKED:
            begun = FailureDetail(Fault.NODE, "the node rejected what it had begun", code="node_broke_contract")
            return self._broken(now, stream, begun)
        request = attempt.request
        request.tried.add(attempt.node_id)
        release = self._release(attempt)
        if request.exhausted:
            self.attempts.close(request)
            busy = do.NoNode(request.model, (("rejected", request.attempts),))
            return [release, do.RefuseRequest(request.request_id, busy)]
        return [release, *self._place(now, request)]

    def _finished(self, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        release = self._release(attempt)
        self.attempts.close(attempt.request)
        return [release]

    def _failed(self, now: float, stream: seen.StreamId, failure: FailureDetail) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        return self._attempt_over(now, attempt, failure) if attempt is not None else []

    def _broken(self, now: float, stream: seen.StreamId, failure: FailureDetail) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        cancel = do.CancelAttempt(stream, attempt.link, failure.message)
        return [cancel, *self._attempt_over(now, attempt, failure)]

    def _attempt_over(self, now: float, attempt: Attempt, failure: FailureDetail) -> list[Effect]:
        """An attempt ended without a whole answer: ask another node where that is still possible."""
        request = attempt.request
        delivered = request.delivered
        request.tried.add(attempt.node_id)
        release = self._release(attempt)
        if failure.fault is not Fault.CALLER and not delivered:
            request.failures += 1
            if not request.exhausted and now < request.deadline:
                placed = self._place(now, request)
                if isinstance(placed[0], do.StartAttempt):
                    return [release, *placed]
                return [release, do.FailRequest(request.request_id, failure, request.attempts)]
        self.attempts.close(request)
        return [release, do.FailRequest(request.request_id, failure, request.attempts)]

    def _caller_left(self, request_id: seen.RequestId) -> list[Effect]:
        request = self.attempts.requests.get(request_id)
        if request is None:
            return []
        effects: list[Effect] = []
        if request.current is not None:
            effects.append(self._cancel(request.current, "the caller left"))
        self.attempts.close(request)
        return effects

    def _release(self, attempt: Attempt) -> do.ReleaseStream:
        self._give_back(attempt)
        return do.ReleaseStream(attempt.stream, attempt.link)

    def _cancel(self, attempt: Attempt, reason: str) -> do.CancelAttempt:
        self._give_back(attempt)
        return do.CancelAttempt(attempt.stream, attempt.link, reason)

    def _give_back(self, attempt: Attempt) -> None:
        """Free what the attempt held on its node, if the node still offers the model."""
        self.attempts.end(attempt)
        node = self._linked(attempt.node_id, attempt.link)
        offer = node.offers.get(attempt.request.model) if node else None
        if offer is not None:
            offer.in_flight = max(0, offer.in_flight - 1)

    # --- time ------------------------------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node in self.roster.silent(now):
            assert node.link is not None
            effects.append(do.CloseLink(node.link, do.Silent()))
            effects += self._link_lost(now, node.node_id, node.link, "nothing was heard from it")
        for attempt in self.attempts.overdue(now):
            late = FailureDetail(Fault.NODE, "the node did not answer in time", code="node_timeout")
            effects += self._broken(now, attempt.stream, late)
        return effects
