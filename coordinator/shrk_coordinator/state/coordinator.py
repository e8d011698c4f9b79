"""The one door: `CoordinatorState.handle(event) -> effects`.

It composes the roster, placement, the attempts and the journal. Pieces of answers never pass here, only transitions
do: asked, accepted, first piece, last token, finished, failed, lost, stalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from shrk_contract.terms import CANNOT_RESUME, Fault, ResumeMethod
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.attempts import (
    FINISH_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
    Attempt,
    Attempts,
    Phase,
    Request,
)
from shrk_coordinator.state.continuation import LOSSES, choose, choose_elsewhere
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, FailureDetail
from shrk_coordinator.state.journal import Journal, Outcome
from shrk_coordinator.state.placement import NotThatKind, Nowhere, Placed
from shrk_coordinator.state.roster import Node, Offer, Roster

#: A node that works for someone gives a sign of life every second; its attempts are moved after this. Its link lives
#: on for SILENCE_SECONDS_MAX: it may have been the line.
QUIET_SECONDS_MAX = 4.0
#: The coordinator itself was held up when two ticks are this far apart: then it may not have heard what was said.
TICK_SECONDS_MAX = 1.0
#: A node that stops lets run what runs; what is still left this long before its end is moved.
HAND_OVER_SECONDS = 5.0


class CoordinatorState:
    """All that the coordinator knows and decides. Change it only through `handle`."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.attempts = Attempts()
        self.journal = Journal()
        self._ticked_at = 0.0

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in one fact; return what the world should do about it, in order."""
        match event:
            case seen.NodeHello():
                return self._hello(event)
            case seen.NodeReported(now, node_id, link, report):
                if node := self._linked(node_id, link):
                    self.roster.report(now, node, report)
                return self._place_waiting(now)
            case seen.NodeHeard(now, node_id, link):
                if node := self._linked(node_id, link):
                    node.heard(now)
                return []
            case seen.NodeDraining():
                return self._draining(event)
            case seen.LinkClosed(now, node_id, link, reason):
                return self._link_lost(now, node_id, link, reason)
            case seen.RequestArrived():
                return self._arrived(event)
            case seen.AttemptAccepted(now, stream):
                return self._accepted(now, stream)
            case seen.AttemptRejected(now, stream, _):
                return self._rejected(now, stream)
            case seen.FirstPieceDelivered(now, stream, index):
                return self._first_piece(now, stream, index)
            case seen.IdsUnknown(_, stream):
                if attempt := self.attempts.by_stream.get(stream):
                    attempt.request.by_ids = False
                return []
            case seen.LastTokenDelivered(now, stream, tokens):
                return self._last_token(now, stream, tokens)
            case seen.AttemptFinished(now, stream, tokens):
                return self._finished(now, stream, tokens)
            case seen.AttemptFailed(now, stream, failure):
                return self._failed(now, stream, failure)
            case seen.AttemptBroken(now, stream, failure):
                return self._broken(now, stream, failure)
            case seen.AttemptStalled(now, stream):
                return self._stalled(now, stream)
            case seen.CallerLeft(now, request_id):
                return self._caller_left(now, request_id)
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
        if node := self._linked(node_id, link):
            self.roster.unlink(now, node)
            return self._lost_on(now, link, reason)
        return []

    def _lost_on(self, now: float, link: seen.LinkId, reason: str) -> list[Effect]:
        lost = FailureDetail(Fault.NODE, f"the node was lost: {reason}", code="node_lost")
        effects: list[Effect] = []
        for attempt in self.attempts.on_link(link):
            effects += self._attempt_over(now, attempt, lost)
        return effects

    def _draining(self, event: seen.NodeDraining) -> list[Effect]:
        node = self._linked(event.node_id, event.link)
        if node is None:
            return []
        node.draining = True
        node.heard(event.now)
        node.hand_over_at = event.now + max(0.0, event.seconds - HAND_OVER_SECONDS)
        return self._hand_over_draining(event.now, node)

    # --- requests --------------------------------------------------------------------------------

    def _arrived(self, event: seen.RequestArrived) -> list[Effect]:
        self.journal.arrived(event)
        request = Request(
            request_id=event.request_id,
            model=event.model,
            endpoint=event.endpoint,
            streaming=event.streaming,
            by_ids=event.by_ids,
            deadline=event.now + REQUEST_SECONDS_MAX,
        )
        self.attempts.open(request)
        if not self.roster.knows(event.model):
            unknown = do.UnknownModel(event.model, self.roster.nearest(event.model))
            return [self._refuse(event.now, request, unknown)]
        return self._place_or_refuse(event.now, request)

    def _place_or_refuse(self, now: float, request: Request) -> list[Effect]:
        """Ask a node, or tell the caller why none can be asked. Only while nothing has gone wrong."""
        placement, resume = choose(self.roster, request, now)
        match placement:
            case Placed(node, offer):
                return [self._begin(now, request, node, offer, resume, "")]
            case NotThatKind(served):
                return [self._refuse(now, request, do.WrongEndpoint(request.model, request.endpoint, served))]
            case Nowhere(counts):
                return [self._refuse(now, request, do.NoNode(request.model, counts))]
            case _:
                assert_never(placement)

    def _begin(
        self, now: float, request: Request, node: Node, offer: Offer, resume: ResumeMethod | None, after: str
    ) -> do.StartAttempt:
        attempt = self.attempts.begin(now, request, node.node_id, offer.life, offer.engine.pin, resume)
        offer.in_flight += 1
        offer.placed += 1
        self.journal.attempted(now, request.request_id, attempt.number, node.node_id, resume)
        return do.StartAttempt(
            request.request_id, attempt.number, attempt.stream, node.node_id, attempt.link, resume, after
        )

    def _refuse(
        self, now: float, request: Request, why: do.UnknownModel | do.WrongEndpoint | do.NoNode
    ) -> do.RefuseRequest:
        self._close(now, request, Outcome.REFUSED)
        return do.RefuseRequest(request.request_id, why)

    def _fail(self, now: float, request: Request, failure: FailureDetail) -> do.FailRequest:
        self._close(now, request, Outcome.FAILED)
        return do.FailRequest(request.request_id, failure, request.attempts)

    def _close(self, now: float, request: Request, outcome: Outcome, tokens: int | None = None) -> None:
        self.attempts.close(request)
        self.journal.ended(now, request.request_id, outcome, tokens)

    # --- attempts --------------------------------------------------------------------------------

    def _accepted(self, now: float, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is not None and attempt.phase is Phase.ASKED:
            attempt.accepted(now)
        return []

    def _first_piece(self, now: float, stream: seen.StreamId, index: int) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        request = attempt.request
        attempt.spoke(now)
        self.journal.first_piece(now, request.request_id, index)
        if offer := self._offer_of(attempt):
            offer.stalled_at = None
        return []

    def _last_token(self, now: float, stream: seen.StreamId, tokens: int) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is not None:
            attempt.phase = Phase.CLOSING
            attempt.request.tokens = tokens
            attempt.deadline = min(now + FINISH_SECONDS_MAX, attempt.request.deadline)
        return []

    def _rejected(self, now: float, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        if attempt.phase is not Phase.ASKED:
            begun = FailureDetail(Fault.NODE, "the node rejected what it had begun", code="node_broke_contract")
            return self._broken(now, stream, begun)
        request = attempt.request
        request.left[attempt.life] = now
        release = self._release(now, attempt, Outcome.REJECTED)
        if request.delivered or request.failures:
            busy = FailureDetail(Fault.NODE, "no node was free to go on", code="node_rejected")
            return [release, *self._go_on(now, request, busy)]
        if request.exhausted:
            return [release, self._refuse(now, request, do.NoNode(request.model, (("rejected", request.attempts),)))]
        return [release, *self._place_or_refuse(now, request)]

    def _finished(self, now: float, stream: seen.StreamId, tokens: int) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        release = self._release(now, attempt, Outcome.FINISHED)
        self._close(now, attempt.request, Outcome.FINISHED, tokens)
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
        """An attempt ended without a finish: complete the request, or ask another node where that is possible."""
        request = attempt.request
        release = self._release(now, attempt, Outcome.FAILED, failure)
        if attempt.phase is Phase.CLOSING:
            if failure.code not in LOSSES:
                return [release, self._fail(now, request, failure)]
            self._close(now, request, Outcome.FINISHED, request.tokens)
            return [release, do.CompleteRequest(request.request_id)]
        if failure.fault is Fault.CALLER and not request.delivered:
            return [release, self._fail(now, request, failure)]
        if failure.code == CANNOT_RESUME and attempt.resume is ResumeMethod.BY_IDS:
            # That engine cannot go on by ids; what a replay says is verified, by whichever engine.
            request.by_ids = False
        else:
            request.tried.add(attempt.life)
            request.failures = attempt.failures_after
        return [release, *self._go_on(now, request, failure)]

    def _go_on(self, now: float, request: Request, failure: FailureDetail) -> list[Effect]:
        """Ask the next node, or wait for one, or give the request up with what was last heard."""
        if request.exhausted or now >= request.deadline:
            return [self._fail(now, request, failure)]
        placement, resume = choose(self.roster, request, now)
        if isinstance(placement, Placed):
            return [self._begin(now, request, placement.node, placement.offer, resume, failure.code)]
        # What has begun to reach its caller waits in any case; the rest, where what was lost or another may be back.
        others = failure.fault is not Fault.COORDINATOR and self.roster.due_back(now, request.model)
        hopeful = request.delivered or failure.code in LOSSES or others
        if hopeful and self.attempts.wait(now, request, failure):
            return []
        return [self._fail(now, request, failure)]

    def _place_waiting(self, now: float) -> list[Effect]:
        """Ask a node for every request that waits for one; give up on those that waited too long."""
        effects: list[Effect] = []
        for request in list(self.attempts.waiting.values()):
            assert request.lost is not None, "only requests that lost a node wait"
            placement, resume = choose(self.roster, request, now)
            if isinstance(placement, Placed):
                after = request.lost.code
                effects.append(self._begin(now, request, placement.node, placement.offer, resume, after))
            elif now >= request.wait_until:
                effects.append(self._fail(now, request, request.lost))
        return effects

    # --- moving attempts while their node still lives ------------------------------------------------

    def _stalled(self, now: float, stream: seen.StreamId) -> list[Effect]:
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None or attempt.phase is not Phase.ANSWERING:
            return []
        if offer := self._offer_of(attempt):
            offer.stalled_at = now
        return self._hand_over(now, attempt, "node_stalled", "no token came for too long")

    def _hand_over_draining(self, now: float, node: Node) -> list[Effect]:
        if node.link is None or now < node.hand_over_at:
            return []
        effects: list[Effect] = []
        for attempt in self.attempts.on_link(node.link):
            effects += self._hand_over(now, attempt, "node_draining", "the node is stopping")
        return effects

    def _hand_over_quiet(self, now: float) -> list[Effect]:
        moving: list[Attempt] = []
        for link in self.attempts.links():
            [first, *_] = attempts = self.attempts.on_link(link)
            node = self._linked(first.node_id, link)
            # An idle node speaks only every few seconds: what counts is how long it has worked and said nothing.
            if node is not None and now - max(node.heard_at, first.begun_at) > QUIET_SECONDS_MAX:
                node.quiet = True
                moving += attempts
        effects: list[Effect] = []
        for attempt in moving:
            effects += self._hand_over(now, attempt, "node_silent", "nothing is heard from the node")
        return effects

    def _hand_over(self, now: float, attempt: Attempt, code: str, why: str) -> list[Effect]:
        """Move an attempt to another node, if there is one: this one may still finish it."""
        request = attempt.request
        if not attempt.movable:
            return []
        chosen = choose_elsewhere(self.roster, request, attempt.life)
        if chosen is None:
            return []
        placement, resume = chosen
        moved = FailureDetail(Fault.NODE, why, code=code)
        cancel = self._cancel(now, attempt, why, Outcome.HANDED_OVER, moved)
        request.left[attempt.life] = now
        request.failures = attempt.failures_after
        return [cancel, self._begin(now, request, placement.node, placement.offer, resume, code)]

    # --- ends --------------------------------------------------------------------------------------

    def _caller_left(self, now: float, request_id: seen.RequestId) -> list[Effect]:
        request = self.attempts.requests.get(request_id)
        if request is None:
            return []
        effects: list[Effect] = []
        if request.current is not None:
            effects.append(self._cancel(now, request.current, "the caller left", Outcome.CANCELLED))
        self._close(now, request, Outcome.CANCELLED)
        return effects

    def _release(
        self, now: float, attempt: Attempt, outcome: Outcome, failure: FailureDetail | None = None
    ) -> do.ReleaseStream:
        self._give_back(now, attempt, outcome, failure)
        return do.ReleaseStream(attempt.stream, attempt.link)

    def _cancel(
        self, now: float, attempt: Attempt, reason: str, outcome: Outcome, failure: FailureDetail | None = None
    ) -> do.CancelAttempt:
        self._give_back(now, attempt, outcome, failure)
        return do.CancelAttempt(attempt.stream, attempt.link, reason)

    def _give_back(self, now: float, attempt: Attempt, outcome: Outcome, failure: FailureDetail | None) -> None:
        """Free what the attempt held on its node, if the node still offers the model."""
        self.attempts.end(attempt)
        code, reason = (failure.code, failure.message) if failure else ("", "")
        self.journal.attempt_ended(now, attempt.request.request_id, outcome, code, reason)
        if offer := self._offer_of(attempt):
            offer.in_flight = max(0, offer.in_flight - 1)

    def _offer_of(self, attempt: Attempt) -> Offer | None:
        """What the attempt is a part of, if it is still offered; not what the engine's next life offers."""
        node = self._linked(attempt.node_id, attempt.link)
        offer = node.offers.get(attempt.request.model) if node else None
        return offer if offer is not None and offer.life == attempt.life else None

    # --- time ------------------------------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for link in self.roster.unlink_silent(now):
            effects += [do.CloseLink(link, do.Silent()), *self._lost_on(now, link, "nothing was heard from it")]
        for attempt in self.attempts.overdue(now):
            late = FailureDetail(Fault.NODE, "the node did not answer in time", code="node_timeout")
            effects += self._broken(now, attempt.stream, late)
        if now - self._ticked_at <= TICK_SECONDS_MAX:
            effects += self._hand_over_quiet(now)
        for node in self.roster.draining():
            effects += self._hand_over_draining(now, node)
        self._ticked_at = now
        return [*effects, *self._place_waiting(now)]
