"""Why a model has fewer replicas than it should: nodes that serve it and are not asked, and what the reconciler knows.

In words, for people; every one of them may read them, so that no node's own words are among them.
"""

from __future__ import annotations

from collections.abc import Iterator

from shrk_coordinator.state.assigning import Assigning
from shrk_coordinator.state.census import left_out
from shrk_coordinator.state.phrases import NAMED_MAX, counted, lasting
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.replicas.reasons import NodeName
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.served import Offer


def why_short(roster: Roster, assigning: Assigning, model: str, now: float, name: NodeName) -> str:
    """One line, never empty. `name`: what people call a node."""
    out = [
        _why(node, offer, reason, now, name(node.node_id))
        for node, offer in roster.offers(model)
        if (reason := left_out(node, offer, now)) is not None
    ]
    return "; ".join(_few(out, assigning.why_short(now, model, name))) or "a node has just come or gone"


def _few(out: list[str], others: str) -> Iterator[str]:
    yield from out[:NAMED_MAX]
    if len(out) > NAMED_MAX:
        yield f"{counted(len(out) - NAMED_MAX, 'other node')} cannot be asked either"
    if others:
        yield others


def _why(node: Node, offer: Offer, reason: Reason, now: float, name: str) -> str:
    match reason:
        case Reason.DRAINING:
            return f"{name} is stopping"
        case Reason.CLOSING:
            return f"{name} closes in {lasting((node.closes_at or now) - now)}"
        case Reason.HOT:
            return f"{name} is too hot for new work"
    breaker = offer.standing.breaker
    if breaker.closed:
        return f"nothing was heard from {name} for {lasting(now - node.heard_at)}"
    what = "an answer stalled" if breaker.stalled else "requests fail"
    return f"{what} on {name}; {_then(offer, now)}"


def _then(offer: Offer, now: float) -> str:
    breaker = offer.standing.breaker
    if (left := breaker.open_until - now) > 0:
        return f"it is tried again in {lasting(left)}"
    if breaker.allows(now):
        return "it waits for a request to show that it is well"
    return "it is tried with one request now"
