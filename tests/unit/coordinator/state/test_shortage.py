"""Why a model has fewer replicas than it should: what is said of nodes that serve it and are not asked."""

from __future__ import annotations

from dataclasses import replace

from shrk_contract.terms import Device, Fault, Terms
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.shortage import why_short
from support.states import a_report, link_node


def served_by(*nodes: str) -> CoordinatorState:
    state = CoordinatorState()
    for node in nodes:
        link_node(state, node, "m")
    state.handle(seen.Reconcile(0.0))
    return state


def why(state: CoordinatorState, now: float) -> str:
    return why_short(state.roster, state.assigning, "m", now, lambda node: f"node-{node}")


def test_a_breaker_is_told_with_when_its_node_is_tried_again() -> None:
    state = served_by("a", "b", "c")
    breaker = state.roster.nodes["a"].standing("m").breaker
    for _ in range(FAILURES_MAX):
        breaker.failed(0.0)
    assert why(state, 4.0) == "requests have failed on node-a for 4 s; it is tried again in 26 s"
    well = "requests have failed on node-a for 30 s; it waits for a request to show that it is well"
    assert why(state, OPEN_SECONDS) == well
    breaker.began(OPEN_SECONDS)
    assert why(state, OPEN_SECONDS).endswith("it is tried with one request now")


def test_of_what_failed_a_word_is_told_and_no_sentence_of_the_nodes() -> None:
    state = served_by("a", "b", "c")
    standing = state.roster.nodes["a"].standing("m")
    for code, told in (("engine_lost", " (engine_lost)"), ("see http://x", "")):
        for _ in range(FAILURES_MAX):
            standing.failed(0.0, why=FailureDetail(Fault.ENGINE, "secret", code=code))
        assert why(state, 4.0).startswith(f"requests have failed on node-a for 4 s{told};")


def test_a_hot_a_closing_and_a_silent_node_are_each_told_as_that() -> None:
    state = served_by("a", "b", "c")
    report = a_report("m")

    def says(node: str, terms: Terms) -> None:
        link = state.roster.nodes[node].link
        assert link is not None
        gpus = (Device("0", temperature_celsius=69.5),)
        state.handle(seen.NodeReported(1.0, node, link, replace(report, devices=gpus, terms=terms)))

    says("a", Terms(temperature_celsius_max=70.0))
    says("b", Terms(closes_in_seconds=20.0))
    state.roster.nodes["c"].quiet = True
    assert why(state, 6.0).startswith(
        "node-a is too hot for new work; node-b closes in 15 s; nothing was heard from node-c for 6 s"
    )


def test_a_node_whose_owner_has_it_and_one_that_is_kept_back_are_told_without_their_own_words() -> None:
    state = served_by("a", "b", "c")
    for node, terms in (("a", Terms(closes_in_seconds=0.0)), ("b", Terms(kept_back="no sensor answers: see http://x"))):
        link = state.roster.nodes[node].link
        assert link is not None
        state.handle(seen.NodeReported(1.0, node, link, replace(a_report("m"), terms=terms)))
    assert why(state, 2.0).startswith("node-a is its owner's own now; node-b is kept back by its owner's terms")


def test_of_many_nodes_a_few_are_told_and_the_others_counted() -> None:
    state = served_by(*"abcde")
    for node in state.roster.nodes.values():
        node.quiet = True
    assert why(state, 5.0).count("nothing was heard") == 3
    assert "2 other nodes cannot be asked either" in why(state, 5.0)


def test_something_is_said_in_any_case() -> None:
    assert why(served_by("a", "b", "c"), 1.0) == "a node has just come or gone"
