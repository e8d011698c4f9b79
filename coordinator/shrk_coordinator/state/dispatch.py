"""Requests on their way to an answer: asked of a node, of another, of two at once, or waiting for one.

Every method takes in one fact and returns what follows from it, in order.
"""

from __future__ import annotations

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, ResumeMethod
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.asking import Asking
from shrk_coordinator.state.budget import HEDGE_SHARE, RETRIES_MIN, RETRY_SHARE, Budget
from shrk_coordinator.state.continuation import CONFIRMED_LOSSES, LOSSES, choose_elsewhere
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import FailureDetail, StreamId
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.learning import learn_answer, learn_first_token
from shrk_coordinator.state.nowhere import NotThatKind, Nowhere
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.prospects import no_node, others_may, seconds_until_turn, why_not_now
from shrk_coordinator.state.request import FINISH_SECONDS_MAX, REQUEST_SECONDS_MAX, Attempt, Phase, Request
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX

#: Answers to one request that are taken together, however busy the nodes are: more of them wait.
SIBLINGS_MAX = 8
#: Where others wait and no place was found, none is looked for sooner: what comes free goes to those that wait.
FULL_SECONDS = 0.05


class Dispatch:
    """All requests under way, and the rules by which nodes are asked for them."""

    def __init__(self, roster: Roster, dice: Dice) -> None:
        self.asking = Asking(roster, dice)
        self.attempts, self.journal = self.asking.attempts, self.asking.journal
        self._suspects = self.asking.suspects
        self._roster = roster
        self._dice = dice
        self._retries = Budget(RETRY_SHARE, RETRIES_MIN)
        self._hedges = Budget(HEDGE_SHARE, saved=1.0)

    # --- a request comes -----------------------------------------------------------------------------

    def arrived(self, event: seen.RequestArrived) -> list[Effect]:
        """A caller asks."""
        now, model = event.now, event.model
        self.journal.arrived(event)
        request = Request(
            request_id=event.request_id,
            model=model,
            endpoint=event.endpoint,
            streaming=event.streaming,
            by_ids=event.by_ids,
            deadline=now + REQUEST_SECONDS_MAX,
            digest=event.digest,
            affinity=event.affinity,
            queues=self._comes_along(event),
            sibling=event.sibling_of != b"",
        )
        self.attempts.open(request)
        if not self._roster.knows(model):
            return [self._refuse(now, request, do.UnknownModel(model, self._roster.nearest(model)))]
        self._roster.asked(now, model)
        if self._suspects.poisoned(now, event.digest):
            return [self._refuse_poisoned(now, request)]
        self._retries.request()
        self._hedges.request()
        others_first = self.attempts.waiting.new(model) and not request.queues
        return self._place_last(now, request) if others_first else self._place_new(now, request)

    def _place_last(self, now: float, request: Request) -> list[Effect]:
        """Others came first: it gets a place that none of them may have, or waits behind them."""
        served = self._roster.served(request.model)
        assert served is not None, "others wait for it"
        if now - served.full_at < FULL_SECONDS and served.found_full is not None:
            return self._wait_or_refuse(now, request, served.found_full)
        return [*self.asking.fill_before(now, request), *self._place_new(now, request)]

    def _comes_along(self, event: seen.RequestArrived) -> bool:
        """Whether it is one of the first few answers to a request, of which another is under way already."""
        first = self.attempts.requests.get(event.sibling_of)
        return event.sibling < SIBLINGS_MAX and first is not None and first.current is not None

    def _place_new(self, now: float, request: Request) -> list[Effect]:
        """Ask a node, or let the request wait for one, or tell its caller why none can be asked."""
        if self._suspects.poisoned(now, request.digest):
            return [self._refuse_poisoned(now, request)]
        if started := self.asking.ask(now, request, ""):
            return started
        nowhere = why_not_now(now, self._roster, request)
        if isinstance(nowhere, NotThatKind):
            return [self._refuse(now, request, do.WrongEndpoint(request.model, request.endpoint, nowhere.served))]
        served = self._roster.served(request.model)
        newcomer = not (request.tried or request.left)
        if served is not None and newcomer and Reason.FULL in dict(nowhere.counts):
            served.full_at, served.found_full = now, nowhere
        return self._wait_or_refuse(now, request, nowhere)

    def _wait_or_refuse(self, now: float, request: Request, nowhere: Nowhere) -> list[Effect]:
        """Wait while a node is busy, or due back; in vain nobody waits."""
        model, waiting = request.model, self.attempts.waiting
        suspect = bool(self._suspects.nodes(now, request.digest))
        if Reason.FULL in dict(nowhere.counts) or suspect:
            wait = seconds_until_turn(self._roster, waiting, model, nowhere)
            # Whoever has had its turn, and was turned away by a node, waits for as long as it would have.
            hopeful = wait <= WAIT_SECONDS_MAX or request.attempts > 0
        else:
            hopeful = self._roster.due_back(now, model)
        if (hopeful or request.sibling) and not request.exhausted and waiting.join(now, request, None, suspect=suspect):
            return []
        return [self._refuse_for_now(now, request, nowhere)]

    # --- it ends -------------------------------------------------------------------------------------

    def _refuse(
        self, now: float, request: Request, why: do.UnknownModel | do.WrongEndpoint | do.NoNode | do.Poisoned
    ) -> do.RefuseRequest:
        self._close(now, request, Outcome.REFUSED)
        return do.RefuseRequest(request.request_id, why)

    def _refuse_for_now(self, now: float, request: Request, nowhere: Nowhere) -> do.RefuseRequest:
        return self._refuse(now, request, no_node(now, self._roster, self.attempts.waiting, request.model, nowhere))

    def _refuse_poisoned(self, now: float, request: Request) -> do.RefuseRequest:
        left = self._suspects.seconds_left(now, request.digest)
        return self._refuse(now, request, do.Poisoned(request.model, left))

    def _fail(self, now: float, request: Request, failure: FailureDetail) -> do.FailRequest:
        self._close(now, request, Outcome.FAILED)
        return do.FailRequest(request.request_id, failure, request.attempts)

    def _close(self, now: float, request: Request, outcome: Outcome, tokens: int | None = None) -> None:
        for _ in range(request.retries):
            self._retries.done()
        self.attempts.close(request)
        self.journal.ended(now, request.request_id, outcome, tokens)

    def caller_left(self, now: float, request_id: seen.RequestId) -> list[Effect]:
        """The caller is gone, whether it has its answer or not."""
        request = self.attempts.requests.get(request_id)
        if request is None:
            return []
        effects = self._cancel_all(now, request, "the caller left", Outcome.CANCELLED)
        self._close(now, request, Outcome.CANCELLED)
        return effects

    def _cancel_all(self, now: float, request: Request, reason: str, outcome: Outcome) -> list[Effect]:
        attempts = [attempt for attempt in (request.current, request.rival) if attempt is not None]
        return [self.asking.cancel(now, attempt, reason, outcome) for attempt in attempts]

    # --- what an attempt does --------------------------------------------------------------------------

    def accepted(self, now: float, stream: StreamId) -> list[Effect]:
        """A node took it."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is not None and attempt.phase is Phase.ASKED:
            attempt.accepted(now)
        return []

    def hedge_due(self, now: float, stream: StreamId) -> list[Effect]:
        """A first token takes longer than nearly all others did: ask a second node, while the budget lasts."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None or attempt.phase not in (Phase.ASKED, Phase.READING):
            return []
        request = attempt.request
        suspect = bool(self._suspects.nodes(now, request.digest))
        if request.rival is not None or request.delivered or request.exhausted or suspect:
            return []
        chosen = choose_elsewhere(self._roster, request, attempt.node_id, now, self._dice)
        if chosen is None or not self._hedges.spend():
            return []
        return [self.asking.begin(now, request, chosen, "", rival=True)]

    def race_won(self, now: float, stream: StreamId) -> list[Effect]:
        """Of two attempts this one has sent something first: the other is not wanted any more."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None or attempt.request.rival is None:
            return []
        request = attempt.request
        loser = request.current if attempt is request.rival else request.rival
        assert loser is not None, "a rival runs besides a current attempt"
        # It takes at least as long as it has taken already.
        if served := self._roster.served(request.model):
            loser.standing.speed.outrun(now, now - loser.begun_at, served.usual)
        return [self.asking.cancel(now, loser, "another node was faster", Outcome.OUTRUN)]

    def first_piece(self, now: float, stream: StreamId, index: int) -> list[Effect]:
        """Its first piece goes to the caller: it has won any race."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        request = attempt.request
        effects = self.race_won(now, stream)
        attempt.spoke(now, index)
        self.journal.first_piece(now, request.request_id, attempt.number, index)
        self.asking.well(attempt)
        if attempt.resume is None:
            learn_first_token(self._roster, now, attempt)
        return effects

    def ids_unknown(self, stream: StreamId) -> list[Effect]:
        """Its engine does not tell all token ids."""
        if attempt := self.attempts.by_stream.get(stream):
            attempt.request.by_ids = False
        return []

    def last_token(self, now: float, stream: StreamId, tokens: int) -> list[Effect]:
        """Its last token goes to the caller."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is not None:
            attempt.phase = Phase.CLOSING
            attempt.request.tokens = tokens
            attempt.deadline = min(now + FINISH_SECONDS_MAX, attempt.request.deadline)
        return []

    def rejected(self, now: float, stream: StreamId) -> list[Effect]:
        """A node did not take it."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        if attempt.phase is not Phase.ASKED:
            begun = FailureDetail(Fault.NODE, "the node rejected what it had begun", code="node_broke_contract")
            return self.broken(now, stream, begun)
        request = attempt.request
        request.left[attempt.life] = now
        request.rejections += 1
        attempt.gave_way()
        attempt.standing.rejected(now)
        release = self.asking.release(now, attempt, Outcome.REJECTED)
        if request.current is not None:
            return [release]
        if request.delivered or request.failures:
            busy = FailureDetail(Fault.NODE, "no node was free to go on", code="node_rejected")
            if request.rejections > 1 and not (request.delivered or self._retry(request)):
                return [release, *self._wait_or_fail(now, request, busy)]
            return [release, *self._go_on(now, request, busy, free=True)]
        if request.exhausted:
            rejected = ((Reason.REJECTED, request.attempts),)
            return [release, self._refuse(now, request, do.NoNode(request.model, rejected))]
        if request.rejections > 1 and not self._retry(request):
            # Nodes that take nothing must not cost as much as those that fail.
            return [release, *self._wait_or_refuse(now, request, Nowhere(((Reason.FULL, len(request.left)),)))]
        return [release, *self._place_new(now, request)]

    def _retry(self, request: Request) -> bool:
        """Take a second try from the budget, until the request ends; False where none is left."""
        if not self._retries.spend():
            return False
        request.retries += 1
        return True

    def finished(self, now: float, stream: StreamId, tokens: int) -> list[Effect]:
        """Its answer is whole."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        request = attempt.request
        self.asking.well(attempt)
        learn_answer(self._roster, now, attempt, tokens)
        effects: list[Effect] = [self.asking.release(now, attempt, Outcome.FINISHED)]
        effects += self._cancel_all(now, request, "another node was faster", Outcome.OUTRUN)
        self._close(now, request, Outcome.FINISHED, tokens)
        return effects

    def failed(self, now: float, stream: StreamId, failure: FailureDetail) -> list[Effect]:
        """It ended without a whole answer."""
        attempt = self.attempts.by_stream.get(stream)
        return self.over(now, attempt, failure) if attempt is not None else []

    def broken(self, now: float, stream: StreamId, failure: FailureDetail) -> list[Effect]:
        """Its node does what the contract forbids, or nothing at all; it may still be generating."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None:
            return []
        cancel = do.CancelAttempt(stream, attempt.link, failure.message)
        return [cancel, *self.over(now, attempt, failure)]

    def over(self, now: float, attempt: Attempt, failure: FailureDetail) -> list[Effect]:
        """An attempt ended without a finish: complete the request, or ask another node where that is possible."""
        request = attempt.request
        lost = self._remember_failure(now, attempt, failure)
        release = self.asking.release(now, attempt, Outcome.FAILED, failure)
        if attempt.phase is Phase.CLOSING:
            if failure.code not in LOSSES:
                return [release, self._fail(now, request, failure)]
            self._close(now, request, Outcome.FINISHED, request.tokens)
            return [release, do.CompleteRequest(request.request_id)]
        if failure.fault is Fault.CALLER and not request.delivered:
            others = self._cancel_all(now, request, "the caller is at fault", Outcome.CANCELLED)
            return [release, *others, self._fail(now, request, failure)]
        if failure.code == CANNOT_RESUME and attempt.resume is ResumeMethod.BY_IDS:
            # That engine cannot go on by ids; what a replay says is verified, by whichever engine.
            request.by_ids = False
        else:
            request.tried.add(attempt.life)
            request.failures = attempt.failures_after
        if request.current is not None:
            return [release]
        return [release, *self._go_on(now, request, failure, free=lost)]

    def _remember_failure(self, now: float, attempt: Attempt, failure: FailureDetail) -> bool:
        """What it says about the node, and about the request; True where the attempt was lost with its engine."""
        request, standing = attempt.request, attempt.standing
        # Only what was to be continued can be what cannot be.
        excused = attempt.resume is not None and failure.code in (CANNOT_RESUME, DIVERGED)
        if attempt.phase is Phase.CLOSING or excused or failure.fault not in (Fault.NODE, Fault.ENGINE):
            attempt.gave_way()
            return False
        if failure.code == "engine_crashed" and request.digest and attempt.spoke_at is None and not request.delivered:
            self._suspects.blame(now, request.digest, attempt.node_id, attempt.life)
        confirmed = attempt.life if failure.code in CONFIRMED_LOSSES else None
        return standing.failed(now, confirmed, attempt.begun_at, failure)

    def _go_on(self, now: float, request: Request, failure: FailureDetail, *, free: bool) -> list[Effect]:
        """Ask the next node, or wait for one, or give the request up with what was last heard. `free`: at no cost to
        the retry budget."""
        if request.exhausted or now >= request.deadline:
            return [self._fail(now, request, failure)]
        if self._suspects.poisoned(now, request.digest) and not request.delivered:
            return [self._refuse_poisoned(now, request)]
        if not (request.delivered or free or self._retry(request)):
            return [self._fail(now, request, failure)]
        # Who else was reading where an engine crashed is about to be told: suspects are tried with the next tick.
        tried_at_once = failure.code != "engine_crashed" or not self._suspects.nodes(now, request.digest)
        if tried_at_once and (started := self.asking.ask(now, request, failure.code)):
            return started
        return self._wait_or_fail(now, request, failure)

    def _wait_or_fail(self, now: float, request: Request, failure: FailureDetail) -> list[Effect]:
        """What has begun to reach its caller waits in any case; the rest, where what was lost may be back."""
        others = failure.fault is not Fault.COORDINATOR and others_may(
            now, self._roster, self.attempts.waiting, request
        )
        hopeful = request.delivered or failure.code in LOSSES or others
        suspect = bool(self._suspects.nodes(now, request.digest))
        if hopeful and self.attempts.waiting.join(now, request, failure, suspect=suspect):
            return []
        return [self._fail(now, request, failure)]

    # --- those that wait -------------------------------------------------------------------------------

    def end_overdue(self, now: float) -> list[Effect]:
        """End the attempts that are past their deadlines."""
        effects: list[Effect] = []
        for attempt in self.attempts.overdue(now):
            late = FailureDetail(Fault.NODE, "the node did not answer in time", code="node_timeout")
            effects += self.broken(now, attempt.stream, late)
        return effects

    def give_up_waiting(self, now: float) -> list[Effect]:
        """End the requests that have waited long enough, and those that engines have crashed of meanwhile."""
        waiting = [request for request in self.attempts.waiting if not request.delivered]
        poisoned = [request for request in waiting if self._suspects.poisoned(now, request.digest)]
        effects: list[Effect] = [self._refuse_poisoned(now, request) for request in poisoned]
        for request in self.attempts.waiting.overdue(now):
            if request.lost is not None:
                effects.append(self._fail(now, request, request.lost))
                continue
            nowhere = why_not_now(now, self._roster, request)
            effects.append(self._refuse_for_now(now, request, nowhere if isinstance(nowhere, Nowhere) else Nowhere(())))
        return effects

    # --- moving attempts while their node still lives ----------------------------------------------------

    def stalled(self, now: float, stream: StreamId) -> list[Effect]:
        """No token came for longer than its own pace explains."""
        attempt = self.attempts.by_stream.get(stream)
        if attempt is None or attempt.phase is not Phase.ANSWERING:
            return []
        why = FailureDetail(Fault.NODE, "no token came for too long", code="node_stalled")
        attempt.standing.stalled(now, attempt.begun_at, why)
        return self.hand_over(now, attempt, why.code, why.message)

    def hand_over(self, now: float, attempt: Attempt, code: str, why: str) -> list[Effect]:
        """Move an attempt to another node, if there is one: this one may still finish it."""
        request = attempt.request
        if not attempt.movable or (not request.delivered and self._suspects.nodes(now, request.digest)):
            return []  # A suspect stays where it is: it may be what is wrong there.
        moved = FailureDetail(Fault.NODE, why, code=code)
        if request.rival is not None:
            return [self._leave(now, attempt, moved)]
        chosen = choose_elsewhere(self._roster, request, attempt.node_id, now, self._dice)
        if chosen is None:
            return []
        return [self._leave(now, attempt, moved), self.asking.begin(now, request, chosen, code)]

    def _leave(self, now: float, attempt: Attempt, why: FailureDetail) -> do.CancelAttempt:
        request = attempt.request
        request.failures = attempt.failures_after
        request.left[attempt.life] = now
        return self.asking.cancel(now, attempt, why.message, Outcome.HANDED_OVER, why)
