"""Placement: feasible, then rank, then choose."""

from __future__ import annotations

from shrk_contract.terms import Endpoint
from shrk_coordinator.state.placement import Nowhere, Placed, Reason, place, why_not
from shrk_coordinator.state.roster import Roster
from support.states import CHAT, a_report


def a_roster(*nodes: str) -> Roster:
    roster = Roster()
    for link, node_id in enumerate(nodes):
        roster.report(0.0, roster.link(0.0, node_id, link, 1, "owner"), a_report("m"))
    return roster


def test_every_reason_not_to_ask_a_node_has_a_name() -> None:
    roster = a_roster("a")
    node, offer = next(iter(roster.offers("m")))
    assert why_not(node, offer, CHAT, ()) is None
    assert why_not(node, offer, CHAT, {"a"}) is Reason.TRIED
    assert why_not(node, offer, Endpoint.EMBEDDINGS, ()) is Reason.ENDPOINT
    node.draining = True
    assert why_not(node, offer, CHAT, ()) is Reason.DRAINING


def test_a_node_that_was_tried_is_not_asked_again() -> None:
    placed = place(a_roster("a", "b"), "m", CHAT, {"a"})
    assert isinstance(placed, Placed)
    assert placed.node.node_id == "b"


def test_when_there_is_nobody_to_ask_the_reasons_are_counted() -> None:
    assert place(a_roster("a", "b"), "m", CHAT, {"a", "b"}) == Nowhere((("already_tried", 2),))
    assert place(a_roster(), "m", CHAT, ()) == Nowhere(())
