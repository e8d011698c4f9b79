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
from shrk_coordinator.state.verdict import retried


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
            left = (node.closes_at or now) - now
            return f"{name} closes in {lasting(left)}" if left > 0 else f"{name} is its owner's own now"
        case Reason.HOT:
            return f"{name} is too hot for new work"
        case Reason.KEPT_BACK:
            return f"{name} is kept back by its owner's terms"
    breaker = offer.standing.breaker
    if breaker.closed:
        return f"nothing was heard from {name} for {lasting(now - node.heard_at)}"
    since = lasting(now - breaker.opened_at)
    what = (
        f"an answer stalled on {name} {since} ago" if breaker.stalled else f"requests have failed on {name} for {since}"
    )
    return f"{what}{_code(offer)}; it {retried(breaker, now)}"


def _code(offer: Offer) -> str:
    """What failed last, as far as it is one word and not a sentence of the node's."""
    failure = offer.standing.last_failure
    told = failure is not None and failure.code.isidentifier() and not offer.standing.breaker.stalled
    return f" ({failure.code})" if failure is not None and told else ""
