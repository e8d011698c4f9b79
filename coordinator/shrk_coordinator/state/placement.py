"""Placement: which node to ask. Feasible, then rank, then choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from shrk_contract.terms import Endpoint
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.roster import Node, Offer, Roster


class Reason(StrEnum):
    """Why a node that has the model is not asked."""

    DRAINING = "draining"
    ENDPOINT = "endpoint_not_served"
    TRIED = "already_tried"


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


def why_not(node: Node, offer: Offer, endpoint: Endpoint, tried: Collection[NodeId]) -> Reason | None:
    """The reason this node is not asked, or None where it may be. Kept for the operator (`shrk why`)."""
    if node.draining:
        return Reason.DRAINING
    if endpoint not in offer.engine.endpoints:
        return Reason.ENDPOINT
    if node.node_id in tried:
        return Reason.TRIED
    return None


def rank(offer: Offer) -> tuple[float, int, NodeId]:
    """Least loaded first; among equals the one that was asked least, so that idle nodes take turns."""
    return offer.load, offer.placed, offer.node_id


def place(roster: Roster, model: str, endpoint: Endpoint, tried: Collection[NodeId]) -> Placed | NotThatKind | Nowhere:
    """Choose a node for one attempt."""
    best: Placed | None = None
    lowest: tuple[float, int, NodeId] | None = None
    for node, offer in roster.offers(model):
        if why_not(node, offer, endpoint, tried) is None:
            ranked = rank(offer)
            if lowest is None or ranked < lowest:
                best, lowest = Placed(node, offer), ranked
    if best is not None:
        return best
    # Only now, when there is nobody to ask, is it worth looking at every node for the reason.
    served = {served for _, offer in roster.offers(model) for served in offer.engine.endpoints}
    if served and endpoint not in served:
        return NotThatKind(tuple(sorted(served)))
    reasons = Counter[str](
        reason for node, offer in roster.offers(model) if (reason := why_not(node, offer, endpoint, tried))
    )
    return Nowhere(tuple(sorted((reasons + roster.not_serving(model)).items())))
