"""Placement: which node to ask. Feasible, then rank, then choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from shrk_contract.terms import Endpoint, Pin
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.roster import EngineLife, Node, Offer, Roster


class Reason(StrEnum):
    """Why a node that has the model is not asked."""

    DRAINING = "draining"
    ENDPOINT = "endpoint_not_served"
    TRIED = "already_tried"
    PIN = "another_pin"
    UNWELL = "stalled_or_silent"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one attempt needs of a node."""

    model: str
    endpoint: Endpoint
    #: Engines that this request does not ask again.
    tried: Collection[EngineLife] = ()
    #: What the engine must be, where it is to go on exactly; None: whatever serves the model.
    pin: Pin | None = None
    #: Only engines that have not just stalled, on nodes that are heard.
    well: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """Ask this node."""

    node: Node
    offer: Offer


@dataclass(frozen=True, slots=True)
class NotThatKind:
    """Nodes serve the model, and none of them this endpoint."""

    served: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No feasible node; how many there were per reason."""

    counts: tuple[tuple[str, int], ...]


def why_not(node: Node, offer: Offer, wish: Wish) -> Reason | None:
    """The reason this node is not asked, or None where it may be. Kept for the operator (`shrk why`)."""
    if node.draining:
        return Reason.DRAINING
    if wish.endpoint not in offer.engine.endpoints:
        return Reason.ENDPOINT
    if offer.life in wish.tried:
        return Reason.TRIED
    if wish.pin is not None and offer.engine.pin != wish.pin:
        return Reason.PIN
    if wish.well and (offer.stalled_at is not None or node.quiet):
        return Reason.UNWELL
    return None


def rank(node: Node, offer: Offer) -> tuple[bool, float, int, NodeId]:
    """Least loaded first; among equals the one that was asked least, so that idle nodes take turns.

    One that has just stalled, or is not heard, comes last: what it lost has left it the least loaded of all.
    """
    return offer.stalled_at is not None or node.quiet, offer.load, offer.placed, offer.node_id


def place(roster: Roster, wish: Wish) -> Placed | NotThatKind | Nowhere:
    """Choose a node for one attempt."""
    model, endpoint = wish.model, wish.endpoint
    best: Placed | None = None
    lowest: tuple[bool, float, int, NodeId] | None = None
    for node, offer in roster.offers(model):
        if why_not(node, offer, wish) is None:
            ranked = rank(node, offer)
            if lowest is None or ranked < lowest:
                best, lowest = Placed(node, offer), ranked
    if best is not None:
        return best
    # Only now, when there is nobody to ask, is it worth looking at every node for the reason.
    served = {served for _, offer in roster.offers(model) for served in offer.engine.endpoints}
    if served and endpoint not in served:
        return NotThatKind(tuple(sorted(served)))
    reasons = Counter[str](reason for node, offer in roster.offers(model) if (reason := why_not(node, offer, wish)))
    return Nowhere(tuple(sorted((reasons + roster.not_serving(model)).items())))
