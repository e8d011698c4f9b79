"""What attempts give back, and what says nothing against a node."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Fault
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import OPEN_SECONDS
from shrk_coordinator.state.budget import RETRIES_MIN
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from support.states import CHAT, ask, fail, link_node, only_start

ERROR = FailureDetail(Fault.ENGINE, "out of memory", http_status=500, code="engine_error")


@pytest.fixture
def state() -> CoordinatorState:
    state = CoordinatorState()
    for node in "ab":
        link_node(state, node, "m", slots=64)
    return state


def test_a_callers_own_error_says_nothing_against_the_node(state: CoordinatorState) -> None:
    wrong = FailureDetail(Fault.CALLER, "too long", http_status=400)
    for _ in range(20):
        start = only_start(ask(state)[1])
        state.handle(seen.AttemptFailed(0.0, start.stream, wrong))
    assert all(offer.standing.breaker.closed for _, offer in state.roster.offers("m"))


def test_what_a_retry_took_from_the_budget_is_given_back_when_its_request_ends(state: CoordinatorState) -> None:
    for _ in range(10 * RETRIES_MIN):
        link_node(state, "a", "m", slots=64)
        link_node(state, "b", "m", slots=64)
        start = only_start(ask(state)[1])
        again = only_start(list(state.handle(seen.AttemptFailed(0.0, start.stream, ERROR))))
        state.handle(seen.FirstPieceDelivered(0.0, again.stream))
        state.handle(seen.AttemptFinished(0.1, again.stream, 1))


def test_an_answer_without_any_token_ends_a_race_as_well(state: CoordinatorState) -> None:
    first = only_start(ask(state)[1])
    second = only_start(list(state.handle(seen.HedgeDue(5.0, first.stream))))
    effects = state.handle(seen.AttemptFinished(6.0, second.stream, 0))
    assert do.CancelAttempt(first.stream, first.link, "another node was faster") in effects
    assert not state.attempts.requests


def test_a_lost_engine_counts_once_however_many_attempts_it_takes_along(state: CoordinatorState) -> None:
    starts = [only_start(ask(state)[1]) for _ in range(20)]
    for start in starts:
        if start.node_id == "a":
            fail(state, start, "engine_lost")
    assert state.roster.nodes["a"].standing("m").breaker.closed


def test_a_token_clears_a_suspect_also_where_it_closes_a_breaker() -> None:
    state = CoordinatorState()
    links = {node: link_node(state, node, "m") for node in "ab"}
    deadly = seen.RequestArrived(0.0, b"\x01" * 16, "m", CHAT, True, False, key_id="key", digest=b"deadly")
    first = only_start(list(state.handle(deadly)))
    other = "b" if first.node_id == "a" else "a"
    breaker = state.roster.nodes[other].offers["m"].standing.breaker
    breaker.stall(0.0)
    for node, link in links.items():
        state.handle(seen.NodeHeard(OPEN_SECONDS, node, link))
    effects = fail(state, first, "engine_crashed", now=OPEN_SECONDS + 1)
    effects += list(state.handle(seen.Tick(OPEN_SECONDS + 2)))
    second = only_start(effects)
    assert second.node_id == other
    state.handle(seen.FirstPieceDelivered(OPEN_SECONDS + 3, second.stream))
    assert breaker.closed
    harmless = seen.RequestArrived(OPEN_SECONDS + 4, b"\x02" * 16, "m", CHAT, True, False, digest=b"deadly")
    assert only_start(list(state.handle(harmless)))
    assert state.attempts.requests[b"\x02" * 16].current is not None
