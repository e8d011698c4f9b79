"""The model list: what stands behind each model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shrk_contract.terms import State, Terms
from shrk_coordinator.data_plane.models import entry, listing
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.replicas.demand import IDLE_SECONDS
from shrk_coordinator.state.replicas.reconciler import LOOK_SECONDS
from support.states import a_report, ask, link_node, new_link


def pseudonym(node_id: str) -> str:
    return f"node-{node_id}"


def block_of(state: CoordinatorState, now: float = 0.0) -> dict[str, Any]:
    block: dict[str, Any] = entry(state, "m", 0, now, pseudonym)["shrk"]
    return block


def test_a_model_with_three_owners_nodes_is_redundant_and_with_two_it_is_degraded() -> None:
    state = CoordinatorState()
    links = {node: link_node(state, node, "m") for node in "abc"}
    block = block_of(state)
    assert (block["nodes"], block["effective_n"], block["redundancy"]) == (3, 3, "ok")
    state.handle(seen.LinkClosed(0.0, "a", links["a"], "cut"))
    block = block_of(state)
    assert (block["nodes"], block["effective_n"], block["redundancy"]) == (2, 2, "degraded")


def test_a_node_that_is_left_alone_serves_and_does_not_count() -> None:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m")
    state.handle(seen.Reconcile(0.0))
    state.roster.nodes["a"].standing("m").breaker.stall(0.0)
    block = block_of(state, now=4.0)
    assert (block["nodes"], block["effective_n"], block["wanted_n"], block["redundancy"]) == (3, 2, 3, "degraded")
    assert block["redundancy_reason"] == "an answer stalled on node-a 4 s ago; it is tried again in 26 s"


def test_what_keeps_nodes_and_what_keeps_the_model_from_more_of_them_is_told_together() -> None:
    state = CoordinatorState()
    links = {node: link_node(state, node, "m") for node in "ab"}
    state.handle(seen.Reconcile(0.0))
    state.handle(seen.NodeDraining(1.0, "a", links["a"], 30.0))
    block = block_of(state, now=2.0)
    assert block["redundancy_reason"] == ("node-a is stopping; 2 nodes that may have it are linked, and 3 are needed")


def test_of_a_model_that_nobody_can_be_asked_for_it_is_said_that_nobody_answers() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    assert block_of(state)["redundancy"] == "degraded"
    state.roster.nodes["a"].quiet = True
    block = block_of(state, now=5.0)
    assert (block["effective_n"], block["redundancy"]) == (0, "none")
    assert block["redundancy_reason"].startswith("nothing was heard from node-a for 5 s")


def test_a_model_that_nobody_asks_for_is_idle_and_not_degraded() -> None:
    state, link = CoordinatorState(), new_link()
    unloaded = replace(a_report("m", state=State.PAUSED), terms=Terms(scales_to_zero=True, memory_bytes=10))
    state.handle(seen.NodeHello(0.0, "a", link, 1, owner="ann"))
    state.handle(seen.NodeReported(0.0, "a", link, unloaded))
    for now in (0.0, IDLE_SECONDS, IDLE_SECONDS + LOOK_SECONDS):
        state.roster.nodes["a"].heard(now)
        state.handle(seen.Reconcile(now))
    block = block_of(state, now=IDLE_SECONDS + LOOK_SECONDS)
    assert (block["effective_n"], block["wanted_n"], block["redundancy"]) == (0, 0, "idle")
    assert block["redundancy_reason"] == "idle: loaded again when somebody asks"


def test_those_that_wait_for_a_model_are_counted() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", slots=1)
    for _ in range(3):
        ask(state)
    block = block_of(state)
    assert (block["in_flight"], block["slots"], block["waiting"]) == (1, 1, 2)


def test_a_model_without_a_node_stays_listed() -> None:
    state = CoordinatorState()
    state.handle(seen.LinkClosed(0.0, "a", link_node(state, "a", "m"), "cut"))
    [model] = listing(state, 0, 0.0, pseudonym)["data"]
    assert (model["id"], model["shrk"]["nodes"], model["shrk"]["redundancy"]) == ("m", 0, "none")
