"""The model list: what stands behind each model."""

from __future__ import annotations

from shrk_coordinator.data_plane.models import entry, listing
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from support.states import ask, link_node


def test_a_model_with_three_owners_nodes_is_redundant_and_with_two_it_is_degraded() -> None:
    state = CoordinatorState()
    links = {node: link_node(state, node, "m") for node in "abc"}
    block = entry(state, "m", 0)["shrk"]
    assert (block["nodes"], block["effective_n"], block["redundancy"]) == (3, 3, "ok")
    state.handle(seen.LinkClosed(0.0, "a", links["a"], "cut"))
    block = entry(state, "m", 0)["shrk"]
    assert (block["nodes"], block["effective_n"], block["redundancy"]) == (2, 2, "degraded")


def test_a_node_that_is_left_alone_serves_and_does_not_count() -> None:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m")
    state.roster.nodes["a"].standing("m").breaker.stall(0.0)
    block = entry(state, "m", 0)["shrk"]
    assert (block["nodes"], block["effective_n"], block["redundancy"]) == (3, 2, "degraded")


def test_those_that_wait_for_a_model_are_counted() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", slots=1)
    for _ in range(3):
        ask(state)
    block = entry(state, "m", 0)["shrk"]
    assert (block["in_flight"], block["slots"], block["waiting"]) == (1, 1, 2)


def test_a_model_without_a_node_stays_listed() -> None:
    state = CoordinatorState()
    state.handle(seen.LinkClosed(0.0, "a", link_node(state, "a", "m"), "cut"))
    [model] = listing(state, 0)["data"]
    assert (model["id"], model["shrk"]["nodes"], model["shrk"]["redundancy"]) == ("m", 0, "degraded")
