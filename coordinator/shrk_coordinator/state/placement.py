"""Placement: which node to ask. Feasible, then rank, then choose.

All nodes of a model are looked at while they are few; of many, some that are drawn: the best of those is nearly the
best of all, costs the same however many there are, and two coordinators do not flock to the same one. A conversation
stays where it is at home, as long as its answer may be expected there about as soon as elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from shrk_contract.terms import Endpoint, Pin
from shrk_coordinator.state.affinity import NO_AFFINITY, Affinity
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.nowhere import NotThatKind, Nowhere
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.speed import Usual

#: So many offers are looked at for one attempt.
CHOICES = 16
#: A home is kept while the answer is expected there within so many times what it takes at best: a crowd on one node
#: costs more than reading a conversation anew …
HOME_RATIO = 1.5
#: … or within so many seconds of it, in which a home GPU reads a few hundred tokens.
HOME_SECONDS = 0.1

#: A node whose window closes sooner gets nothing new: most answers would have to be moved.
CLOSING_SECONDS = 30.0
#: Nor does one that is closer to its cap than this, in degrees Celsius.
HEAT_MARGIN = 2.0


class Reason(StrEnum):
    """Why a node that has the model is not asked, or does not take it. Callers read the words of `errors`."""

    DRAINING = "draining"
    CLOSING = "window_closes"
    HOT = "too_hot"
    KEPT_BACK = "kept_back"
    ENDPOINT = "endpoint_not_served"
    TRIED = "already_tried"
    PIN = "another_pin"
    EJECTED = "failed_lately"
    UNWELL = "stalled_or_silent"
    FULL = "busy"
    #: It was asked, and did not take it.
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one attempt needs of a node."""

    model: str
    endpoint: Endpoint
    #: Monotonic seconds: breakers close with time.
    now: float = 0.0
    #: Engines that this request does not ask again.
    tried: Collection[EngineLife] = ()
    #: What it shares with the other turns of its conversation.
    affinity: Affinity = NO_AFFINITY
    #: Nodes that it does not ask, whatever their engine.
    spared: Collection[NodeId] = ()
    #: What the engine must be, where it is to go on exactly; None: whatever serves the model.
    pin: Pin | None = None
    #: Only engines that have not just stalled, on nodes that are heard.
    well: bool = False
    #: Also engines that keep failing.
    ejected: bool = False
    #: May wait in the engine's own queue: its caller is being served already.
    queues: bool = False
    #: May be the probe of an engine that failed: nothing is lost but a moment.
    probes: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """Ask this node."""

    node: Node
    offer: Offer


def takes_nothing(node: Node, now: float) -> Reason | None:
    """Why a node gets nothing new, whatever is asked for; None where it may."""
    if node.draining:
        return Reason.DRAINING
    # What is hot closes at once, too: that is no matter of its owner's hours.
    if node.margin is not None and node.margin < HEAT_MARGIN:
        return Reason.HOT
    if node.closes_at is not None and node.closes_at - now < CLOSING_SECONDS:
        return Reason.CLOSING
    return Reason.KEPT_BACK if node.kept_back else None


def why_not(node: Node, offer: Offer, wish: Wish) -> Reason | None:
    """The reason this node is not asked, or None where it may be. Kept for the operator (`shrk why`)."""
    if reason := takes_nothing(node, wish.now):
        return reason
    if wish.endpoint not in offer.engine.endpoints:
        return Reason.ENDPOINT
    if offer.life in wish.tried or offer.node_id in wish.spared:
        return Reason.TRIED
    if wish.pin is not None and offer.engine.pin != wish.pin:
        return Reason.PIN
    if reason := _trouble(node, offer, wish):
        return reason
    if not offer.has_room(queues=wish.queues) or (wish.now < offer.standing.busy_until and not wish.ejected):
        return Reason.FULL
    return None


def _trouble(node: Node, offer: Offer, wish: Wish) -> Reason | None:
    breaker = offer.standing.breaker
    if not breaker.allows(wish.now):
        if not breaker.stalled and not wish.ejected:
            return Reason.EJECTED
        if breaker.stalled and wish.well:
            return Reason.UNWELL
    return Reason.UNWELL if wish.well and node.quiet else None


class Turn(IntEnum):
    """Who is asked before whom, however soon it would answer."""

    PROBED = 0
    WELL = 1
    LAST = 2


#: Turn, expected time in steps, load, attempts so far, and the name.
Rank = tuple[Turn, int, float, int, NodeId]
#: What differs by less than this factor is much the same: else all would go to whoever is a hair faster.
STEP = 1.25
#: Nobody notices which of two answers was quicker, where both take less: what little they differ by is chance.
NOTICED_SECONDS = 0.1


def rank(node: Node, offer: Offer, wish: Wish, usual: Usual) -> Rank:
    """The soonest answer first; of much the same the least loaded, then whoever was asked least: idle nodes take turns.

    One that failed is probed as soon as it may be, or it would never be found well again; until then it comes last, as
    does one that is not heard: what it lost has left it the least loaded of all.
    """
    steps = round(math.log(max(expected_seconds(offer, wish, usual), NOTICED_SECONDS), STEP))
    return _turn(node, offer, wish), steps, _share(offer), offer.placed, offer.node_id


def _turn(node: Node, offer: Offer, wish: Wish) -> Turn:
    breaker = offer.standing.breaker
    if node.quiet:
        return Turn.LAST
    if breaker.closed:
        return Turn.WELL
    return Turn.PROBED if wish.probes and breaker.allows(wish.now) else Turn.LAST


def expected_seconds(offer: Offer, wish: Wish, usual: Usual) -> float:
    """What an answer may be expected to take there, loaded as it would be with this one."""
    return offer.standing.speed.expected(wish.now, usual) * (1.0 + _share(offer))


def _share(offer: Offer) -> float:
    return (offer.live + 1) / offer.slots


def place(roster: Roster, wish: Wish, dice: Dice) -> Placed | None:
    """Choose a node for one attempt; None where none is feasible, or hardly any: where nodes are many, not all of them
    are looked at."""
    best = _best(roster, wish, roster.some_offers(wish.model, CHOICES, dice))
    if best is None and roster.count(wish.model) > CHOICES:
        best = _best(roster, wish, roster.next_offers(wish.model))
    return best and (_home(roster, wish, best) or best)


def _best(roster: Roster, wish: Wish, offers: Iterable[tuple[Node, Offer]]) -> Placed | None:
    best: Placed | None = None
    lowest: Rank | None = None
    served = roster.served(wish.model)
    for node, offer in offers:
        if why_not(node, offer, wish) is None:
            assert served is not None, "there are offers"
            ranked = rank(node, offer, wish, served.usual)
            if lowest is None or ranked < lowest:
                best, lowest = Placed(node, offer), ranked
    return best


def _home(roster: Roster, wish: Wish, best: Placed) -> Placed | None:
    """Where its conversation is at home, if that is nearly as good as the best; None where it has no such home."""
    served = roster.served(wish.model)
    if wish.affinity == NO_AFFINITY or served is None or _turn(best.node, best.offer, wish) is not Turn.WELL:
        return None
    soonest = expected_seconds(best.offer, wish, served.usual)
    limit = max(HOME_RATIO * soonest, soonest + HOME_SECONDS)
    for node, offer in roster.homes(wish.model, wish.affinity, CHOICES):
        well = why_not(node, offer, wish) is None and _turn(node, offer, wish) is Turn.WELL
        if well and expected_seconds(offer, wish, served.usual) <= limit:
            return Placed(node, offer)
    return None


def why_nowhere(roster: Roster, wish: Wish) -> NotThatKind | Nowhere:
    """Why no node is feasible: counts every one, or where they are many, some."""
    looked_at = [(why_not(node, offer, wish), offer.slots) for node, offer in roster.next_offers(wish.model)]
    reasons = Counter[str](reason for reason, _ in looked_at if reason)
    if reasons and reasons.keys() <= {Reason.DRAINING, Reason.ENDPOINT}:
        # Nothing is told for good that is not true of every one.
        served = {served for _, offer in roster.offers(wish.model) for served in offer.engine.endpoints}
        if wish.endpoint not in served:
            return NotThatKind(tuple(sorted(served)))
    counts = reasons + roster.not_serving(wish.model)
    busy = sum(slots for reason, slots in looked_at if reason is Reason.FULL)
    return Nowhere(tuple(sorted(counts.items())), busy / max(1, sum(slots for _, slots in looked_at)))
