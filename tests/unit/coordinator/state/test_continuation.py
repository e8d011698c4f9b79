"""Going on with what was delivered: where, how, how often, and when it is given up."""

from __future__ import annotations

import pytest

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, Rejection, ResumeMethod
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.continuation import LEFT_SECONDS, choose, choose_elsewhere
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.request import (
    ATTEMPTS_MAX,
    FAILURES_MAX,
    FINISH_SECONDS_MAX,
    FIRST_PIECE_SECONDS_MAX,
    REPLAY_SLOWNESS,
    Request,
)
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.states import (
    CHAT,
    DICE,
    OTHER_PIN,
    PIN,
    a_failure,
    a_report,
    ask,
    begun,
    fail,
    link_node,
    lose,
    only_start,
)

BY_IDS, REPLAY = ResumeMethod.BY_IDS, ResumeMethod.REPLAY


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def of(effects: list[do.Effect], kind: type[do.Effect]) -> list[do.Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def method(roster: Roster, request: Request, now: float) -> ResumeMethod | None:
    chosen = choose(roster, request, now, DICE)
    assert chosen is not None
    return chosen[1]


# --- which node, and how -----------------------------------------------------------------------------


def test_what_has_reached_nobody_begins_anew_and_anything_else_goes_on() -> None:
    roster = Roster()
    roster.report(0.0, roster.link(0.0, "a", 1, 1, "o"), a_report("m", pin=PIN))
    request = Request(b"r", "m", CHAT, streaming=True, deadline=100.0, by_ids=True, pin=PIN)
    assert method(roster, request, 0.0) is None
    request.delivered = True
    assert method(roster, request, 0.0) is BY_IDS
    request.by_ids = False
    assert method(roster, request, 0.0) is REPLAY
    request.by_ids, request.pin = True, OTHER_PIN
    assert method(roster, request, 0.0) is REPLAY


def test_nothing_is_moved_to_where_it_is_or_was_or_to_what_is_unwell() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "o")
    roster.report(0.0, node, a_report("m"))
    offer = node.offers["m"]
    request = Request(b"r", "m", CHAT, streaming=True, deadline=100.0)
    assert choose_elsewhere(roster, request, "a", 0.0, DICE) is None
    roster.report(0.0, node, a_report("m", life=1))
    assert choose_elsewhere(roster, request, "a", 0.0, DICE) is None, "its next life is no other node"
    offer = node.offers["m"]
    assert choose_elsewhere(roster, request, "b", 0.0, DICE) is not None
    offer.standing.breaker.stall(0.0)
    assert choose_elsewhere(roster, request, "b", 0.0, DICE) is None
    offer.standing.breaker.spoke()
    node.quiet = True
    assert choose_elsewhere(roster, request, "b", 0.0, DICE) is None
    node.quiet = False
    request.left[offer.life] = 0.0
    assert choose_elsewhere(roster, request, "b", 0.0, DICE) is None


def test_an_engine_that_was_left_is_asked_again_where_there_is_no_other_and_one_that_failed_is_not() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "o")
    roster.report(0.0, node, a_report("m"))
    request = Request(b"r", "m", CHAT, streaming=True, deadline=100.0, delivered=True)
    request.left[node.offers["m"].life] = 5.0
    assert choose(roster, request, 5.0 + LEFT_SECONDS - 0.1, DICE) is None
    assert choose(roster, request, 5.0 + LEFT_SECONDS, DICE) is not None
    request.tried.add(node.offers["m"].life)
    assert choose(roster, request, 100.0, DICE) is None


def test_a_healthy_unlike_engine_goes_before_an_equal_one_that_has_stalled(state: CoordinatorState) -> None:
    link_node(state, "first", "m", pin=PIN)
    start = begun(state)
    link_node(state, "equal", "m", pin=PIN)
    link_node(state, "unlike", "m", pin=OTHER_PIN)
    state.roster.nodes["equal"].offers["m"].standing.breaker.stall(0.0)
    moved = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    assert (moved.node_id, moved.resume) == ("unlike", REPLAY)


def test_a_stream_is_not_moved_onto_a_node_that_hangs_itself(state: CoordinatorState) -> None:
    link_node(state, "hangs", "m")
    start = begun(state)
    link_node(state, "survives", "m")
    second = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    state.handle(seen.FirstPieceDelivered(1.0, second.stream, 1))
    own = begun(state)
    assert own.node_id == "survives"
    # Reading the other's prompt held everything up on the survivor.
    assert state.handle(seen.AttemptStalled(3.5, own.stream)) == []


def test_after_one_false_stall_a_loss_brings_the_stream_back(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    second = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    state.handle(seen.FirstPieceDelivered(1.0, second.stream, 1))
    back = only_start(lose(state, second, now=5.0))
    assert back.node_id == "a"


def test_a_replay_has_time_for_what_took_long_to_say(state: CoordinatorState) -> None:
    for node in "ab":
        link_node(state, node, "m")
    start = begun(state)
    state.handle(seen.IdsUnknown(0.0, start.stream))
    long = 2 * FIRST_PIECE_SECONDS_MAX
    replay = only_start(lose(state, start, now=long))
    state.handle(seen.AttemptAccepted(long, replay.stream))
    assert state.attempts.by_stream[replay.stream].deadline == long + FIRST_PIECE_SECONDS_MAX + REPLAY_SLOWNESS * long


def test_an_answer_goes_on_by_ids_on_an_engine_of_the_same_kind_however_busy_it_is(state: CoordinatorState) -> None:
    link_node(state, "first", "m", pin=PIN)
    start = begun(state)
    link_node(state, "equal", "m", pin=PIN)
    link_node(state, "unlike", "m", pin=OTHER_PIN)
    state.roster.nodes["equal"].offers["m"].in_flight = 100
    second = only_start(lose(state, start))
    assert (second.node_id, second.resume) == ("equal", BY_IDS)


def test_a_request_that_cannot_go_on_by_ids_is_replayed_on_an_engine_of_the_same_kind(state: CoordinatorState) -> None:
    link_node(state, "first", "m", pin=PIN)
    start = begun(state, by_ids=False)
    link_node(state, "equal", "m", pin=PIN)
    link_node(state, "unlike", "m", pin=OTHER_PIN)
    state.roster.nodes["equal"].offers["m"].in_flight = 100
    second = only_start(lose(state, start))
    assert (second.node_id, second.resume) == ("equal", REPLAY)


def test_without_an_engine_of_the_same_kind_any_other_replays(state: CoordinatorState) -> None:
    link_node(state, "first", "m", pin=PIN)
    start = begun(state)
    link_node(state, "unlike", "m", pin=OTHER_PIN)
    second = only_start(lose(state, start))
    assert (second.node_id, second.resume) == ("unlike", REPLAY)


def test_an_answer_whose_ids_are_not_all_known_is_replayed(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    link_node(state, "b", "m", pin=PIN)
    state.handle(seen.IdsUnknown(0.0, start.stream))
    assert only_start(lose(state, start)).resume is REPLAY


def test_after_a_seam_between_unlike_engines_the_ids_are_no_longer_of_one_kind(state: CoordinatorState) -> None:
    link_node(state, "first", "m", pin=PIN)
    start = begun(state)
    link_node(state, "unlike", "m", pin=OTHER_PIN)
    second = only_start(lose(state, start))
    state.handle(seen.FirstPieceDelivered(0.0, second.stream, 7))
    link_node(state, "equal to the second", "m", pin=OTHER_PIN)
    assert only_start(lose(state, second)).resume is REPLAY


def test_after_a_seam_between_equal_engines_it_goes_on_by_ids_again(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m", pin=PIN)
    second = only_start(lose(state, begun(state)))
    state.handle(seen.FirstPieceDelivered(0.0, second.stream, 7))
    assert only_start(lose(state, second)).resume is BY_IDS


def test_a_whole_answer_begins_anew_wherever_it_was(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = only_start(ask(state, streaming=False, by_ids=True)[1])
    state.handle(seen.AttemptAccepted(0.0, start.stream))
    link_node(state, "b", "m")
    assert only_start(lose(state, start)).resume is None


def test_the_reason_for_another_attempt_goes_with_it(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    first = only_start(ask(state)[1])
    second = only_start(lose(state, first))
    third = only_start(fail(state, second, "engine_hung"))
    assert [start.after for start in (first, second, third)] == ["", "node_lost", "engine_hung"]


# --- what a node says of a continuation ---------------------------------------------------------------


def test_an_engine_that_cannot_go_on_by_ids_replays_and_nothing_is_held_against_it(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    link_node(state, "b", "m", pin=PIN)
    by_ids = only_start(lose(state, start))
    replay = only_start(fail(state, by_ids, CANNOT_RESUME))
    assert (by_ids.resume, replay.resume) == (BY_IDS, REPLAY)
    assert (replay.node_id, replay.after) == ("b", CANNOT_RESUME)
    assert state.attempts.requests[start.request_id].failures == 0


def test_an_engine_that_says_so_of_a_replay_has_failed_like_any_other(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state, by_ids=False)
    for node in "bc":
        link_node(state, node, "m", pin=PIN)
    second = only_start(lose(state, start))
    third = only_start(fail(state, second, CANNOT_RESUME))
    assert {second.node_id, third.node_id} == {"b", "c"}
    assert state.attempts.requests[start.request_id].failures == 1


def test_a_replay_that_says_something_else_is_left_and_another_node_is_asked(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    for node in "bc":
        link_node(state, node, "m")
    second = only_start(lose(state, start))
    effects = fail(state, second, DIVERGED)
    third = only_start(effects)
    assert {second.node_id, third.node_id} == {"b", "c"}
    # Nobody else is there; the first may be back.
    assert not of(fail(state, third, DIVERGED), do.FailRequest)
    effects = list(state.handle(seen.Tick(WAIT_SECONDS_MAX)))
    assert effects[-1] == do.FailRequest(start.request_id, a_failure(DIVERGED), 3)


def test_a_rejection_while_going_on_asks_the_next_node_and_counts_as_no_failure(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    for node in "bc":
        link_node(state, node, "m")
    second = only_start(lose(state, start))
    effects = list(state.handle(seen.AttemptRejected(0.0, second.stream, Rejection.BUSY)))
    third = only_start(effects)
    assert {second.node_id, third.node_id} == {"b", "c"}
    assert third.resume is not None
    assert state.attempts.requests[start.request_id].failures == 0
    # Where all are busy, it is not refused as if it had not begun: it waits.
    effects = list(state.handle(seen.AttemptRejected(0.0, third.stream, Rejection.BUSY)))
    assert effects == [do.ReleaseStream(third.stream, third.link)]
    assert start.request_id in state.attempts.waiting


def test_a_callers_error_ends_a_request_only_while_nothing_was_delivered(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    bad = a_failure("bad_request", Fault.CALLER)
    fresh = only_start(ask(state)[1])
    assert of(list(state.handle(seen.AttemptFailed(0.0, fresh.stream, bad))), do.FailRequest)
    start = begun(state)
    # The first node took the same request without a word: this one's is no reason to stop.
    second = only_start(list(state.handle(seen.AttemptFailed(0.0, start.stream, bad))))
    assert second.resume is not None


# --- how often -----------------------------------------------------------------------------------------


def test_three_attempts_in_a_row_without_a_token_are_the_last(state: CoordinatorState) -> None:
    for node in "abcdefgh":
        link_node(state, node, "m")
    start = begun(state)
    current = only_start(lose(state, start))
    for _ in range(FAILURES_MAX - 1):
        current = only_start(lose(state, current))
    assert of(lose(state, current), do.FailRequest) == [
        do.FailRequest(start.request_id, a_lost_node("cut"), 1 + FAILURES_MAX)
    ]


def test_a_token_begins_the_row_anew_and_eight_attempts_are_all_a_request_gets(state: CoordinatorState) -> None:
    for node in "abcdefghij":
        link_node(state, node, "m")
    current = begun(state)
    for number in range(2, ATTEMPTS_MAX + 1):
        current = only_start(lose(state, current))
        assert current.attempt == number
        state.handle(seen.FirstPieceDelivered(0.0, current.stream, number))
    [failed] = of(lose(state, current), do.FailRequest)
    assert isinstance(failed, do.FailRequest)
    assert failed.attempts == ATTEMPTS_MAX


def test_rejections_count_among_the_eight(state: CoordinatorState) -> None:
    for node in "abcdefghij":
        link_node(state, node, "m")
    current = only_start(lose(state, begun(state)))
    for _ in range(ATTEMPTS_MAX - 2):
        current = only_start(list(state.handle(seen.AttemptRejected(0.0, current.stream, Rejection.BUSY))))
    assert current.attempt == ATTEMPTS_MAX
    assert of(list(state.handle(seen.AttemptRejected(0.0, current.stream, Rejection.BUSY))), do.FailRequest)


def a_lost_node(reason: str) -> seen.FailureDetail:
    return seen.FailureDetail(Fault.NODE, f"the node was lost: {reason}", code="node_lost")


# --- after the last token --------------------------------------------------------------------------------


def test_a_node_lost_after_the_last_token_completes_the_request_and_nobody_else_is_asked(
    state: CoordinatorState,
) -> None:
    for node in "ab":
        link_node(state, node, "m")
    start = begun(state)
    state.handle(seen.LastTokenDelivered(0.0, start.stream))
    assert lose(state, start) == [
        do.ReleaseStream(start.stream, start.link),
        do.CompleteRequest(start.request_id),
    ]
    assert not state.attempts.requests


def test_what_contradicts_the_last_token_does_not_pass_for_a_whole_answer(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    state.handle(seen.LastTokenDelivered(0.0, start.stream))
    late = a_failure("engine_nonsense", Fault.ENGINE)
    effects = list(state.handle(seen.AttemptFailed(0.0, start.stream, late)))
    assert effects[-1] == do.FailRequest(start.request_id, late, 1)


def test_a_finish_that_does_not_follow_the_last_token_is_not_waited_for(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    start = begun(state)
    state.handle(seen.LastTokenDelivered(0.0, start.stream))
    state.handle(seen.NodeHeard(FINISH_SECONDS_MAX, "a", link))
    assert state.handle(seen.Tick(FINISH_SECONDS_MAX)) == []
    effects = list(state.handle(seen.Tick(FINISH_SECONDS_MAX + 0.1)))
    assert isinstance(effects[0], do.CancelAttempt)
    assert effects[-1] == do.CompleteRequest(start.request_id)
