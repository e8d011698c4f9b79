"""Where and how a request goes on: from the beginning, by token ids, or by a replay that is verified."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.placement import Placed, Wish, place, why_not
from shrk_coordinator.state.request import Request
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.served import Offer

#: Ends of an attempt that say nothing against the request, and after which a node may be back in a moment.
LOSSES = frozenset(
    {
        "node_lost",
        "node_silent",
        "node_stalled",
        "node_timeout",
        "node_draining",
        "node_rejected",
        "engine_lost",
        "engine_crashed",
        "engine_hung",
        "engine_aborted",
    }
)
#: Of those the ones that leave no doubt: the node or its engine is gone, or says that it goes. What was lost so is
#: asked of another at no cost to the retry budget.
CONFIRMED_LOSSES = frozenset({"node_lost", "node_draining", "engine_lost", "engine_crashed", "engine_hung"})
#: An engine that was left while it still lived (busy, stalled, silent) is not asked again before this, and then only
#: where there is no other.
LEFT_SECONDS = 1.0

Choice = tuple[Placed, ResumeMethod | None]


def choose(roster: Roster, request: Request, now: float, dice: Dice, spared: Collection[NodeId] = ()) -> Choice | None:
    """The node to ask next, and how it is to go on; None where none is feasible. `spared`: nodes not to ask.

    One that is well goes before one that has stalled; what was delivered goes on by ids on an equal engine; else it is
    replayed, on an equal engine where there is one.
    """
    for wish in _wishes(request, now, spared):
        for each, method in _ways(request, wish):
            if placed := place(roster, each, dice):
                return placed, method
    return None


def choose_at(node: Node, offer: Offer, request: Request, now: float, spared: Collection[NodeId] = ()) -> Choice | None:
    """How a request may go on at this node, where a place has come free; None where it may not."""
    for wish in _wishes(request, now, spared):
        for each, method in _ways(request, wish):
            if why_not(node, offer, each) is None:
                return Placed(node, offer), method
    return None


def first_wish(request: Request, now: float) -> Wish:
    """What a request would like best."""
    return Wish(
        request.model,
        request.endpoint,
        now,
        request.tried | request.left.keys() if request.left else request.tried,
        queues=request.delivered or request.queues,
        probes=not (request.delivered or request.attempts),
        affinity=request.affinity,
    )


def _wishes(request: Request, now: float, spared: Collection[NodeId]) -> Iterator[Wish]:
    """Ever more modest ones."""
    new = replace(first_wish(request, now), spared=spared) if spared else first_wish(request, now)
    yield replace(new, well=True)
    yield new
    # Before anything was lost, a refusal by all is an answer; afterwards any node is better than none.
    if request.attempts or request.delivered:
        tried = request.tried.union(left for left, at in request.left.items() if now - at < LEFT_SECONDS)
        again = replace(new, tried=tried)
        yield replace(again, well=True)
        yield again
        if request.delivered:
            yield replace(again, ejected=True)


def choose_elsewhere(roster: Roster, request: Request, node_id: NodeId, now: float, dice: Dice) -> Choice | None:
    """A node that is well, to which a request may be moved while this one may still finish it; None without one. What
    its engine was started anew for may not have been told yet: a next life there is no other node."""
    wish = replace(first_wish(request, now), well=True, probes=False, spared=(node_id,))
    for each, method in _ways(request, wish):
        if placed := place(roster, each, dice):
            return placed, method
    return None


def _ways(request: Request, wish: Wish) -> Iterator[tuple[Wish, ResumeMethod | None]]:
    """How a request may go on, best first."""
    if not request.delivered:
        yield wish, None
        return
    equal = replace(wish, pin=request.pin)
    yield equal, ResumeMethod.BY_IDS if request.by_ids else ResumeMethod.REPLAY
    yield wish, ResumeMethod.REPLAY
