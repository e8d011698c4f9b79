"""Asking nodes: the best one is chosen and asked, a place that comes free goes to whoever waits for it, and what an
attempt held is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shrk_coordinator.state import effects as do
from shrk_coordinator.state.attempts import Attempts
from shrk_coordinator.state.continuation import CONFIRMED_LOSSES, Choice, choose, choose_at
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import FailureDetail, NodeId
from shrk_coordinator.state.journal import Journal, Outcome
from shrk_coordinator.state.request import Attempt, Request
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.suspects import Suspects

#: A second node is asked once a first token takes longer than nearly all others did, but not sooner than this …
HEDGE_SECONDS_MIN = 0.05
#: … nor later; and where too few are known to tell.
HEDGE_SECONDS_MAX = 5.0
#: Of those that wait for a model so many are looked at when time has passed: whoever comes next may not go anywhere.
HEADS = 8
#: And when a place comes free: all before one that may go there may have failed there, together.
CANDIDATES = 128
#: In one tick so many are looked at in vain, whatever they wait for. What happens to a node is heard of when it does:
#: this is for what comes with time alone.
MISSED_MAX = 64


class Asking:
    """Asks nodes for requests."""

    def __init__(self, roster: Roster, dice: Dice) -> None:
        self.attempts = Attempts()
        self.journal = Journal()
        self.suspects = Suspects()
        self._roster = roster
        self._dice = dice
        #: Where places came free with the present event.
        self._freed: list[Offer] = []
        #: The model with which the next tick begins, counted among those that are waited for.
        self._next_model = 0

    def ask(self, now: float, request: Request, after: str) -> list[Effect]:
        """Ask the best node for it; nothing where there is none."""
        chosen = self._choose(now, request, lambda spared: choose(self._roster, request, now, self._dice, spared))
        return [self.begin(now, request, chosen, after)] if chosen else []

    def _choose(
        self, now: float, request: Request, of_others: Callable[[frozenset[NodeId]], Choice | None]
    ) -> Choice | None:
        """As `of_others` says, which is told whom to spare; of all suspects one runs on each node."""
        spared = frozenset() if request.delivered else self.suspects.nodes(now, request.digest)
        if not spared:
            return of_others(spared)
        if self.suspects.poisoned(now, request.digest) and not request.delivered:
            return None
        # The next crash must tell which it was.
        beside = frozenset(
            attempt.node_id
            for attempt in self.attempts.by_stream.values()
            if attempt.spoke_at is None and self.suspects.nodes(now, attempt.request.digest)
        )
        others = self._roster.count(request.model) > len(spared)
        return of_others(spared | beside if others else beside)

    def begin(self, now: float, request: Request, chosen: Choice, after: str, *, rival: bool = False) -> Effect:
        """Ask this node; `rival`: besides the one that is asked already."""
        placed, resume = chosen
        offer = placed.offer
        attempt = self.attempts.begin(now, request, offer, resume, rival=rival)
        attempt.probes = offer.began(now)
        self.journal.attempted(now, request.request_id, attempt.number, offer.node_id, resume)
        hedges = request.streaming and not request.delivered and not rival
        return do.StartAttempt(
            request.request_id,
            attempt.number,
            attempt.stream,
            offer.node_id,
            offer.link,
            resume,
            after,
            rival,
            self._hedge_after(request.model) if hedges else None,
        )

    def _hedge_after(self, model: str) -> float:
        served = self._roster.served(model)
        usual = served.first_tokens.late if served else None
        return HEDGE_SECONDS_MAX if usual is None else min(max(usual, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)

    # --- those that wait -------------------------------------------------------------------------------

    def fill_freed(self, now: float) -> list[Effect]:
        """Give the places that came free to those that wait."""
        effects: list[Effect] = []
        freed, self._freed = self._freed, []
        for offer in freed:
            node = self._roster.nodes[offer.node_id]
            model = offer.engine.model
            while node.offers.get(model) is offer and (begun := self._fill(now, node, offer)):
                effects += begun
        return effects

    def fill_before(self, now: float, newcomer: Request) -> list[Effect]:
        """Give whatever place a newcomer would get to those that have waited for it."""
        effects: list[Effect] = []
        while chosen := choose(self._roster, newcomer, now, self._dice):
            place, _ = chosen
            if not (begun := self._fill(now, place.node, place.offer, siblings=False)):
                break
            effects += begun
        return effects

    def _fill(self, now: float, node: Node, offer: Offer, *, siblings: bool = True) -> list[Effect]:
        for request in self.attempts.waiting.of(offer.engine.model)[:CANDIDATES]:
            if request.sibling and not siblings:
                continue

            def at(spared: frozenset[NodeId], request: Request = request) -> Choice | None:
                return choose_at(node, offer, request, now, spared)

            if chosen := self._choose(now, request, at):
                return [self.begin(now, request, chosen, request.lost.code if request.lost else "")]
        return []

    def well(self, attempt: Attempt) -> None:
        """A token came. Where it closes a breaker, or clears a suspect, all places there are news."""
        cleared = self.suspects.cleared(attempt.request.digest)
        news = cleared or not attempt.standing.breaker.closed
        attempt.standing.spoke()
        offer = self._roster.offer_of(attempt.node_id, attempt.request.model, attempt.life)
        if news and offer is not None:
            self.news([offer])

    def news(self, offers: Iterable[Offer]) -> None:
        """Something is new about them: those that wait are to look at them, where there is room."""
        waiting = self.attempts.waiting
        self._freed += [o for o in offers if waiting.anyone(o.engine.model) and o.has_room(queues=False)]

    def look_again(self, now: float) -> list[Effect]:
        """Time has passed: look for a node for those that wait, model after model, as far as one tick goes."""
        effects: list[Effect] = []
        models = self.attempts.waiting.models()
        first = self._next_model % len(models) if models else 0
        left = MISSED_MAX
        for self._next_model, model in enumerate([*models[first:], *models[:first]], first + 1):
            missed = heads = 0
            for request in self.attempts.waiting.of(model):
                suspect = self.attempts.waiting.suspected(request)
                begun = self.ask(now, request, request.lost.code if request.lost else "")
                effects += begun
                missed += not begun
                # Where one suspect may not go, or one that failed somewhere, the next may: each spares other nodes.
                spares = suspect or request.delivered or request.tried or request.left
                heads += not (begun or spares)
                if missed >= left or heads >= HEADS:
                    break
            left -= missed
            if left <= 0:
                break
        return effects

    # --- what an attempt held --------------------------------------------------------------------------

    def release(
        self, now: float, attempt: Attempt, outcome: Outcome, failure: FailureDetail | None = None
    ) -> do.ReleaseStream:
        """It ended on its node's side."""
        self._give_back(now, attempt, outcome, failure)
        return do.ReleaseStream(attempt.stream, attempt.link)

    def cancel(
        self, now: float, attempt: Attempt, reason: str, outcome: Outcome, failure: FailureDetail | None = None
    ) -> do.CancelAttempt:
        """It is not wanted any more."""
        attempt.gave_way()
        self._give_back(now, attempt, outcome, failure)
        return do.CancelAttempt(attempt.stream, attempt.link, reason)

    def _give_back(self, now: float, attempt: Attempt, outcome: Outcome, failure: FailureDetail | None) -> None:
        """Free what the attempt held on its node, if the node still offers the model."""
        request = attempt.request
        self.attempts.end(attempt)
        code, reason = (failure.code, failure.message) if failure else ("", "")
        self.journal.attempt_ended(now, request.request_id, attempt.number, outcome, code, reason)
        if offer := self._roster.offer_of(attempt.node_id, request.model, attempt.life):
            offer.ended()
            # Where the engine itself is lost there is no place, nor at a node that says that it is busy.
            lost = outcome is Outcome.REJECTED or (failure is not None and failure.code in CONFIRMED_LOSSES)
            if not lost and self.attempts.waiting.anyone(request.model):
                self._freed.append(offer)
