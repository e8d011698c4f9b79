"""What attempts tell about the speed of their engines."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Fault
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.served import Served
from shrk_coordinator.state.speed import TOKENS
from support.states import ask, link_node, lose, only_start

ERROR = FailureDetail(Fault.ENGINE, "out of memory", http_status=500, code="engine_error")


@pytest.fixture
def state() -> CoordinatorState:
    state = CoordinatorState()
    for node in "ab":
        link_node(state, node, "m", slots=64)
    return state


def served(state: CoordinatorState) -> Served:
    found = state.roster.served("m")
    assert found is not None
    return found


def answer(state: CoordinatorState, *, first: float, end: float, tokens: int, streaming: bool = True) -> str:
    """One whole answer; the node that gave it."""
    start = only_start(ask(state, streaming=streaming)[1])
    state.handle(seen.AttemptAccepted(0.0, start.stream))
    if streaming:
        state.handle(seen.FirstPieceDelivered(first, start.stream))
    state.handle(seen.AttemptFinished(end, start.stream, tokens))
    return start.node_id


def test_a_streamed_answer_tells_its_first_token_and_its_pace(state: CoordinatorState) -> None:
    node = answer(state, first=0.5, end=2.5, tokens=100)
    usual = served(state).usual
    assert usual.seconds == pytest.approx(0.5 + TOKENS * 0.02)
    assert state.roster.nodes[node].offers["m"].standing.speed.expected(2.5, usual) == usual.seconds


def test_an_answer_in_one_piece_tells_its_pace_only(state: CoordinatorState) -> None:
    answer(state, first=0.0, end=2.0, tokens=100, streaming=False)
    assert served(state).usual.seconds == pytest.approx(TOKENS * 0.02)


def test_a_continued_answer_says_nothing_about_first_tokens(state: CoordinatorState) -> None:
    start = only_start(ask(state)[1])
    state.handle(seen.FirstPieceDelivered(0.1, start.stream))
    second = only_start(lose(state, start, now=1.0))
    before = served(state).first_tokens.late
    state.handle(seen.FirstPieceDelivered(60.0, second.stream, 5))
    assert served(state).first_tokens.late == before


def test_after_a_failure_answers_in_one_piece_show_that_it_is_over(state: CoordinatorState) -> None:
    standing, usual = state.roster.nodes["a"].offers["m"].standing, served(state).usual
    answer(state, first=0.0, end=0.2, tokens=20, streaming=False)
    standing.failed(0.3)
    failed = standing.speed.expected(0.3, usual)
    state.handle(seen.NodeDraining(0.3, "b", state.roster.nodes["b"].offers["m"].link, 60.0))
    for _ in range(15):
        assert answer(state, first=0.0, end=0.2, tokens=20, streaming=False) == "a"
    assert standing.speed.expected(0.3, usual) < failed / 5


def test_a_short_answer_in_one_piece_says_nothing_about_pace(state: CoordinatorState) -> None:
    answer(state, first=0.3, end=2.3, tokens=100)
    usual = served(state).usual
    before = usual.token
    node = answer(state, first=0.0, end=0.32, tokens=1, streaming=False)
    assert usual.token == before
    answer(state, first=0.0, end=2.3, tokens=100, streaming=False)
    assert usual.token == pytest.approx(before), "its first token is none of its pace"
    speed = state.roster.nodes[node].offers["m"].standing.speed
    assert speed.expected(2.3, usual) == pytest.approx(usual.seconds)


def test_what_generates_nothing_is_compared_by_how_long_it_takes(state: CoordinatorState) -> None:
    for _ in range(6):
        start = only_start(ask(state, streaming=False)[1])
        state.handle(seen.AttemptFinished(1.0 if start.node_id == "a" else 0.1, start.stream, 0))
    usual = served(state).usual
    slow, fast = (state.roster.nodes[node].offers["m"].standing.speed for node in "ab")
    assert slow.expected(1.0, usual) > 1.5 * fast.expected(1.0, usual)
