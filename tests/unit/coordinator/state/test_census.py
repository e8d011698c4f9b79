"""Counts over all nodes and models."""

from __future__ import annotations

from dataclasses import replace

from shrk_contract.terms import Device, State, Terms
from shrk_coordinator.state import census
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.placement import CLOSING_SECONDS, Reason
from shrk_coordinator.state.replicas.facts import Redundancy
from support.states import a_report, ask, link_node, new_link


def test_two_nodes_of_one_owner_are_lost_together_and_count_once() -> None:
    state = CoordinatorState()
    for node, owner in (("a", "ann"), ("b", "ann"), ("c", "bob")):
        link = new_link()
        state.handle(seen.NodeHello(0.0, node, link, 1, owner=owner))
        state.handle(seen.NodeReported(0.0, node, link, a_report("m")))
    assert (state.roster.count("m"), census.effective_n(state.roster, "m", 0.0)) == (3, 2)


def test_a_node_that_is_not_asked_does_not_count() -> None:
    state = CoordinatorState()
    links = {node: link_node(state, node, "m") for node in "abcd"}
    assert census.effective_n(state.roster, "m", 0.0) == 4
    state.roster.nodes["a"].standing("m").breaker.stall(0.0)
    assert census.effective_n(state.roster, "m", 0.0) == 3
    state.handle(seen.NodeDraining(0.0, "b", links["b"], 30.0))
    assert census.effective_n(state.roster, "m", 0.0) == 2
    state.roster.nodes["c"].quiet = True
    assert census.effective_n(state.roster, "m", 0.0) == 1
    state.handle(seen.LinkClosed(0.0, "d", links["d"], "cut"))
    assert census.effective_n(state.roster, "m", 0.0) == 0


def test_a_node_that_placement_would_not_ask_for_anything_new_does_not_count() -> None:
    state = CoordinatorState()
    hot, closing = link_node(state, "hot", "m"), link_node(state, "closing", "m")
    report = a_report("m")
    cap = Terms(temperature_celsius_max=70.0)
    heated = replace(report, devices=(Device("0", temperature_celsius=69.0),), terms=cap)
    state.handle(seen.NodeReported(0.0, "hot", hot, heated))
    closes = replace(report, terms=Terms(closes_in_seconds=CLOSING_SECONDS))
    state.handle(seen.NodeReported(0.0, "closing", closing, closes))
    assert census.effective_n(state.roster, "m", 0.0) == 1
    assert census.effective_n(state.roster, "m", 1.0) == 0
    assert {node.node_id: census.left_out(node, offer, 1.0) for node, offer in state.roster.offers("m")} == {
        "hot": Reason.HOT,
        "closing": Reason.CLOSING,
    }


def test_fewer_than_are_wanted_are_too_few_and_none_is_another_word() -> None:
    assert [census.redundancy_state(count, None) for count in (0, 2, 3, 4)] == ["none", "degraded", "ok", "ok"]
    one = Redundancy(1, 1, 1, degraded=False, idle=False, domain="owner", serving=1, target=1)
    assert [census.redundancy_state(count, one) for count in (0, 1)] == ["none", "ok"]
    idle = replace(one, wanted_n=0, idle=True)
    assert [census.redundancy_state(count, idle) for count in (0, 1)] == ["idle", "ok"]


def test_models_are_counted_by_how_they_stand() -> None:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m")
    link_node(state, "d", "n")
    counts = census.models_by_redundancy(state.roster, state.assigning.redundancy, 0.0)
    assert counts == {"ok": 1, "degraded": 1, "none": 0, "idle": 0}


def test_every_state_is_counted_also_where_no_node_is_in_it() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    state.handle(seen.LinkClosed(0.0, "b", link_node(state, "b", "m"), "cut"))
    counts = census.nodes_by_state(state.roster)
    assert set(counts) == {str(each) for each in State}
    assert (counts["online"], counts["offline"], counts["cooling"]) == (1, 1, 0)


def test_offers_breakers_and_those_that_wait_are_counted_by_model() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", slots=1)
    link_node(state, "b", "n")
    for _ in range(3):
        ask(state, "m")
    state.roster.nodes["b"].standing("n").breaker.stall(0.0)
    assert census.offers_by_model(state.roster) == {"m": 1, "n": 1}
    assert census.breakers_open_by_model(state.roster) == {"m": 0, "n": 1}
    assert census.waiting_by_model(state.roster, state.attempts.waiting) == {"m": 2, "n": 0}


def test_of_many_models_those_that_most_nodes_serve_keep_their_names() -> None:
    state = CoordinatorState()
    invented = [f"invented-{number:04}" for number in range(census.LABELS_MAX)]
    link_node(state, "a", *invented, "z-wanted")
    link_node(state, "b", "z-wanted")
    counts = census.offers_by_model(state.roster)
    assert (counts["z-wanted"], counts[census.OTHERS]) == (2, 1)
    assert len(counts) == census.LABELS_MAX + 1


def test_what_counts_as_one_loss_is_what_the_reconciler_says() -> None:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m")
    for node, owner in (("a", "one"), ("b", "one"), ("c", "two")):
        state.roster.nodes[node].owner, state.roster.nodes[node].address = owner, f"10.0.0.{node}"
    by_owner = Redundancy(2, 3, 3, degraded=True, idle=False, domain="owner", serving=3, target=3)
    assert census.effective_n(state.roster, "m", 0.0, by_owner) == 2
    assert census.redundancy_state(2, by_owner) == "degraded"
    assert census.effective_n(state.roster, "m", 0.0, replace(by_owner, domain="network")) == 3
