"""A second node is asked where the first is slow to begin: whoever speaks first is the answer."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Fault, Rejection
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.asking import HEDGE_SECONDS_MAX, HEDGE_SECONDS_MIN
from shrk_coordinator.state.budget import HEDGE_SHARE
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.speed import FIRST_TOKENS_MIN, LATE_RATIO
from support.states import ask, begun, fail, link_node, lose, only_start

Race = tuple[do.StartAttempt, do.StartAttempt]


@pytest.fixture
def state() -> CoordinatorState:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m", slots=64)
    return state


def race(state: CoordinatorState) -> Race:
    """A request whose first node is slow to begin, and the second that is asked."""
    first = only_start(ask(state)[1])
    state.handle(seen.AttemptAccepted(0.1, first.stream))
    second = only_start(list(state.handle(seen.HedgeDue(5.0, first.stream))))
    return first, second


def outcomes(state: CoordinatorState, start: do.StartAttempt) -> list[Outcome]:
    entry = state.journal.find(start.request_id)
    assert entry is not None
    return [attempt.outcome for attempt in entry.attempts]


def test_a_second_node_is_asked_from_the_beginning(state: CoordinatorState) -> None:
    first, second = race(state)
    assert second.rival
    assert second.resume is None
    assert second.node_id != first.node_id
    assert (second.attempt, second.hedge_after) == (2, None)


def test_when_the_second_speaks_first_the_first_is_cancelled_and_the_answer_goes_on(state: CoordinatorState) -> None:
    first, second = race(state)
    effects = state.handle(seen.FirstPieceDelivered(5.1, second.stream))
    assert effects == [do.CancelAttempt(first.stream, first.link, "another node was faster")]
    state.handle(seen.AttemptFinished(6.0, second.stream, 3))
    assert outcomes(state, first) == [Outcome.OUTRUN, Outcome.FINISHED]
    assert not state.attempts.requests


def test_when_the_first_speaks_after_all_the_second_is_cancelled(state: CoordinatorState) -> None:
    first, second = race(state)
    effects = state.handle(seen.FirstPieceDelivered(5.1, first.stream))
    assert effects == [do.CancelAttempt(second.stream, second.link, "another node was faster")]
    assert outcomes(state, first) == [Outcome.UNDER_WAY, Outcome.OUTRUN]


def test_half_an_event_settles_the_race_as_well(state: CoordinatorState) -> None:
    first, second = race(state)
    [cancelled] = state.handle(seen.RaceWon(5.1, second.stream))
    assert cancelled == do.CancelAttempt(first.stream, first.link, "another node was faster")
    assert state.handle(seen.FirstPieceDelivered(5.2, second.stream)) == []


@pytest.mark.parametrize("ends", ["lost", "failed", "rejected", "timed out"])
def test_where_one_of_the_two_fails_the_other_goes_on_alone(state: CoordinatorState, ends: str) -> None:
    for first_ends in (True, False):
        state = CoordinatorState()
        for node in "abc":
            link_node(state, node, "m")
        first, second = race(state)
        gone, stays = (first, second) if first_ends else (second, first)
        if ends == "lost":
            effects = lose(state, gone, now=5.0)
        elif ends == "failed":
            effects = fail(state, gone, "engine_nonsense", now=5.0)
        elif ends == "rejected":
            effects = list(state.handle(seen.AttemptRejected(5.0, gone.stream, Rejection.BUSY)))
        else:
            late = FailureDetail(Fault.NODE, "late", code="node_timeout")
            effects = list(state.handle(seen.AttemptBroken(5.0, gone.stream, late)))
        assert not [e for e in effects if isinstance(e, do.StartAttempt | do.FailRequest | do.RefuseRequest)]
        assert list(state.attempts.by_stream) == [stays.stream]
        state.handle(seen.FirstPieceDelivered(6.0, stays.stream))
        state.handle(seen.AttemptFinished(7.0, stays.stream, 1))
        assert not state.attempts.requests


def test_where_both_fail_a_third_is_asked(state: CoordinatorState) -> None:
    first, second = race(state)
    fail(state, first, now=5.0)
    third = only_start(fail(state, second, now=5.1))
    assert {first.node_id, second.node_id, third.node_id} == {"a", "b", "c"}
    assert not third.rival


def test_a_callers_own_error_from_either_ends_both(state: CoordinatorState) -> None:
    first, second = race(state)
    wrong = FailureDetail(Fault.CALLER, "too long", http_status=400)
    effects = list(state.handle(seen.AttemptFailed(5.0, second.stream, wrong)))
    assert do.CancelAttempt(first.stream, first.link, "the caller is at fault") in effects
    assert isinstance(effects[-1], do.FailRequest)
    assert not state.attempts.by_stream


def test_a_caller_that_leaves_ends_both(state: CoordinatorState) -> None:
    first, second = race(state)
    effects = state.handle(seen.CallerLeft(5.0, first.request_id))
    assert {e.stream for e in effects if isinstance(e, do.CancelAttempt)} == {first.stream, second.stream}
    assert all(offer.in_flight == 0 for _, offer in state.roster.offers("m"))


def test_a_node_that_drains_leaves_its_part_to_the_other(state: CoordinatorState) -> None:
    first, second = race(state)
    effects = state.handle(seen.NodeDraining(5.0, first.node_id, first.link, 0.0))
    assert effects == [do.CancelAttempt(first.stream, first.link, "the node is stopping")]
    assert list(state.attempts.by_stream) == [second.stream]


def test_nothing_is_hedged_that_has_spoken_ended_or_been_hedged(state: CoordinatorState) -> None:
    spoke = begun(state)
    assert state.handle(seen.HedgeDue(1.0, spoke.stream)) == []
    first, second = race(state)
    for _ in range(40):
        ask(state)
    assert state.handle(seen.HedgeDue(6.0, first.stream)) == []
    assert state.handle(seen.HedgeDue(6.0, second.stream)) == []
    state.handle(seen.CallerLeft(7.0, first.request_id))
    assert state.handle(seen.HedgeDue(8.0, first.stream)) == []


def test_only_so_many_of_all_requests_are_hedged() -> None:
    state = CoordinatorState()
    for node in "abc":
        link_node(state, node, "m", slots=1_000)
    starts = [only_start(ask(state)[1]) for _ in range(400)]
    hedged = sum(bool(state.handle(seen.HedgeDue(5.0, start.stream))) for start in starts)
    assert 1 <= hedged <= HEDGE_SHARE * len(starts) + 1


def test_an_answer_in_one_piece_is_never_hedged(state: CoordinatorState) -> None:
    assert only_start(ask(state, streaming=False)[1]).hedge_after is None


def test_it_is_due_when_the_first_token_is_late(state: CoordinatorState) -> None:
    assert only_start(ask(state)[1]).hedge_after == HEDGE_SECONDS_MAX
    for wait in (0.4, 0.001):
        state = CoordinatorState()
        link_node(state, "a", "m", slots=64)
        for _ in range(FIRST_TOKENS_MIN):
            start = only_start(ask(state)[1])
            state.handle(seen.FirstPieceDelivered(wait, start.stream))
            state.handle(seen.AttemptFinished(wait, start.stream, 1))
        assert only_start(ask(state)[1]).hedge_after == pytest.approx(max(LATE_RATIO * wait, HEDGE_SECONDS_MIN))


def test_who_lost_a_race_counts_as_slow(state: CoordinatorState) -> None:
    for _ in range(6):
        start = only_start(ask(state)[1])
        state.handle(seen.FirstPieceDelivered(0.1, start.stream))
        state.handle(seen.AttemptFinished(0.2, start.stream, 2))
    first, second = race(state)
    state.handle(seen.FirstPieceDelivered(5.1, second.stream))
    asked = [only_start(ask(state, now=5.2)[1]).node_id for _ in range(10)]
    assert first.node_id not in asked
