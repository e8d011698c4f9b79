"""The coordinator's one door: placement, re-placement, failure, and the end of every request."""

from __future__ import annotations

import pytest

from shrk_contract.terms import SILENCE_SECONDS_MAX, Endpoint, Fault, Rejection, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.continuation import LEFT_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.request import (
    ACCEPT_SECONDS_MAX,
    FAILURES_MAX,
    FIRST_PIECE_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
)
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.states import a_report, ask, begun, link_node, lose, only_start

#: Not one after which a node may be back in a moment.
LOST = FailureDetail(Fault.ENGINE, "the engine broke off")
BAD_REQUEST = FailureDetail(Fault.CALLER, "too long", http_status=400)


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def test_a_request_for_a_model_nobody_named_is_refused_with_the_nearest_names(state: CoordinatorState) -> None:
    link_node(state, "a", "shark-tiny", "whale")
    request_id, effects = ask(state, "shark-tin")
    assert effects == [do.RefuseRequest(request_id, do.UnknownModel("shark-tin", ("shark-tiny",)))]
    assert not state.attempts.requests


def test_a_model_that_is_still_loading_is_known_and_has_no_node_yet(state: CoordinatorState) -> None:
    link = link_node(state, "a")
    state.handle(seen.NodeReported(0.0, "a", link, a_report("m", state=State.LOADING)))
    request_id, effects = ask(state)
    [refusal] = effects
    assert isinstance(refusal, do.RefuseRequest)
    assert isinstance(refusal.why, do.NoNode)
    assert (refusal.request_id, refusal.why.counts, refusal.why.loading) == (request_id, (("loading", 1),), True)


def test_the_least_loaded_node_is_asked_and_idle_nodes_take_turns(state: CoordinatorState) -> None:
    for node in ("a", "b", "c"):
        link_node(state, node, "m")
    assert sorted(only_start(ask(state)[1]).node_id for _ in range(3)) == ["a", "b", "c"]


def test_load_is_measured_in_slots_not_in_requests(state: CoordinatorState) -> None:
    link_node(state, "small", "m", slots=1)
    link_node(state, "large", "m", slots=8)
    asked = [only_start(ask(state)[1]).node_id for _ in range(9)]
    assert asked.count("small") == 1


def test_a_node_that_does_not_serve_the_endpoint_is_not_asked(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, effects = ask(state, endpoint=Endpoint.EMBEDDINGS)
    wrong = do.WrongEndpoint("m", Endpoint.EMBEDDINGS, (Endpoint.CHAT_COMPLETIONS,))
    assert effects == [do.RefuseRequest(request_id, wrong)]


def test_a_draining_node_gets_nothing_new(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    link_node(state, "b", "m")
    state.handle(seen.NodeDraining(0.0, "a", link, 60.0))
    assert {only_start(ask(state)[1]).node_id for _ in range(4)} == {"b"}


def test_a_failure_before_the_first_piece_goes_to_another_node(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    first = only_start(ask(state)[1])
    state.handle(seen.AttemptAccepted(0.0, first.stream))
    effects = list(state.handle(seen.AttemptFailed(0.0, first.stream, LOST)))
    assert effects[0] == do.ReleaseStream(first.stream, first.link)
    second = only_start(effects)
    assert (second.attempt, second.request_id) == (2, first.request_id)
    assert second.node_id != first.node_id


def test_a_failure_after_the_first_piece_goes_on_on_another_node(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    start = begun(state)
    effects = list(state.handle(seen.AttemptFailed(0.0, start.stream, LOST)))
    assert effects[0] == do.ReleaseStream(start.stream, start.link)
    second = only_start(effects)
    assert (second.request_id, second.attempt) == (start.request_id, 2)
    assert second.node_id != start.node_id
    assert second.resume is not None


def test_a_failure_after_the_first_piece_ends_the_request_where_no_other_node_comes(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    failed = list(state.handle(seen.AttemptFailed(0.0, start.stream, LOST)))
    assert failed == [do.ReleaseStream(start.stream, start.link)]
    assert list(state.handle(seen.Tick(WAIT_SECONDS_MAX - 0.1))) == []
    assert state.handle(seen.Tick(WAIT_SECONDS_MAX)) == [do.FailRequest(start.request_id, LOST, 1)]


def test_a_callers_own_error_ends_the_request_and_asks_nobody_else(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    request_id, effects = ask(state)
    start = only_start(effects)
    assert do.FailRequest(request_id, BAD_REQUEST, 1) in state.handle(
        seen.AttemptFailed(0.0, start.stream, BAD_REQUEST)
    )


def test_a_rejection_is_no_failure_and_when_all_reject_the_request_waits_and_then_hears_that_nobody_is_free(
    state: CoordinatorState,
) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    request_id, effects = ask(state)
    second = only_start(list(state.handle(seen.AttemptRejected(0.0, only_start(effects).stream, Rejection.BUSY))))
    effects = list(state.handle(seen.AttemptRejected(0.0, second.stream, Rejection.BUSY)))
    assert effects == [do.ReleaseStream(second.stream, second.link)]
    now = 0.0
    while request_id in state.attempts.requests:
        starts = [effect for effect in effects if isinstance(effect, do.StartAttempt)]
        if starts:
            effects = list(state.handle(seen.AttemptRejected(now, starts[0].stream, Rejection.BUSY)))
        else:
            now += LEFT_SECONDS
            effects = list(state.handle(seen.Tick(now)))
    assert now <= WAIT_SECONDS_MAX
    assert isinstance(effects[-1], do.RefuseRequest)


def test_a_rejection_after_a_loss_waits_for_a_node_rather_than_refuse_the_request(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    first = only_start(ask(state)[1])
    link_node(state, "b", "m")
    second = only_start(lose(state, first))
    effects = list(state.handle(seen.AttemptRejected(0.0, second.stream, Rejection.BUSY)))
    assert effects == [do.ReleaseStream(second.stream, second.link)]
    back = link_node(state, "a")
    third = only_start(list(state.handle(seen.NodeReported(1.0, "a", back, a_report("m")))))
    assert (third.request_id, third.node_id) == (first.request_id, "a")


def test_a_node_that_rejects_what_it_has_begun_has_broken_the_contract(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    start = begun(state)
    effects = list(state.handle(seen.AttemptRejected(0.0, start.stream, Rejection.BUSY)))
    assert isinstance(effects[0], do.CancelAttempt)
    assert only_start(effects).after == "node_broke_contract"


def test_a_request_past_its_own_deadline_is_not_tried_again(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = only_start(ask(state)[1])
    link_node(state, "b", "m", now=REQUEST_SECONDS_MAX)
    effects = list(state.handle(seen.AttemptFailed(REQUEST_SECONDS_MAX + 1, start.stream, LOST)))
    assert isinstance(effects[-1], do.FailRequest)


def test_a_node_whose_pieces_come_is_not_silent_though_its_reports_are_late(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    state.handle(seen.NodeHeard(SILENCE_SECONDS_MAX, "a", link))
    assert state.handle(seen.Tick(SILENCE_SECONDS_MAX + 1)) == []


def test_after_three_failures_the_request_fails_whatever_nodes_are_left(state: CoordinatorState) -> None:
    for node in "abcdefg":
        link_node(state, node, "m")
    request_id, effects = ask(state)
    for _ in range(FAILURES_MAX):
        effects = list(state.handle(seen.AttemptFailed(0.0, only_start(effects).stream, LOST)))
    assert effects[-1] == do.FailRequest(request_id, LOST, FAILURES_MAX)


def test_a_lost_link_moves_every_attempt_and_those_that_have_begun_go_on_where_they_were(
    state: CoordinatorState,
) -> None:
    link_node(state, "a", "m")
    answering = begun(state)
    starts = [only_start(ask(state)[1]) for _ in range(2)]
    link_node(state, "b", "m")
    effects = list(state.handle(seen.LinkClosed(1.0, "a", answering.link, "cut")))
    moved = {e.request_id: e for e in effects if isinstance(e, do.StartAttempt)}
    assert moved.keys() == {s.request_id for s in (answering, *starts)}
    assert {(e.node_id, e.after) for e in moved.values()} == {("b", "node_lost")}
    assert [moved[s.request_id].resume for s in starts] == [None, None]
    assert moved[answering.request_id].resume is not None
    assert not [e for e in effects if isinstance(e, do.FailRequest)]


def test_a_node_that_dials_again_replaces_its_older_link_and_loses_its_attempts(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    start = only_start(ask(state)[1])
    effects = list(state.handle(seen.NodeHello(1.0, "a", 999, incarnation=1, owner="o")))
    assert effects[0] == do.CloseLink(old, do.Superseded())
    assert effects[-1] == do.WelcomeNode("a", 999)
    assert start.stream not in state.attempts.by_stream


def test_an_older_start_of_an_agent_cannot_take_the_link_from_a_newer_one(state: CoordinatorState) -> None:
    newer = link_node(state, "a", "m", incarnation=5)
    assert state.handle(seen.NodeHello(1.0, "a", 999, incarnation=4, owner="o")) == [do.CloseLink(999, do.Superseded())]
    assert state.roster.nodes["a"].link == newer


def test_frames_of_a_replaced_link_change_nothing(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    new = link_node(state, "a", "m")
    state.handle(seen.LinkClosed(1.0, "a", old, "late"))
    state.handle(seen.NodeReported(1.0, "a", old, a_report()))
    assert state.roster.nodes["a"].link == new
    assert only_start(ask(state)[1]).link == new


def test_a_silent_node_loses_its_link_and_its_attempts_go_elsewhere(state: CoordinatorState) -> None:
    silent = link_node(state, "a", "m")
    start = only_start(ask(state)[1])
    state.handle(seen.AttemptAccepted(0.0, start.stream))
    other = link_node(state, "b", "m", now=SILENCE_SECONDS_MAX)
    effects = list(state.handle(seen.Tick(SILENCE_SECONDS_MAX + 0.1)))
    assert effects[0] == do.CloseLink(silent, do.Silent())
    assert only_start(effects).link == other


def test_where_all_nodes_fall_silent_at_once_what_they_lose_is_asked_of_none_of_them_and_waits(
    state: CoordinatorState,
) -> None:
    links = [link_node(state, node, "m") for node in "abcd"]
    starts = [begun(state) for _ in range(8)]
    effects = list(state.handle(seen.Tick(SILENCE_SECONDS_MAX + 0.1)))
    assert [e.link for e in effects if isinstance(e, do.CloseLink)] == links
    assert not [e for e in effects if isinstance(e, do.StartAttempt | do.FailRequest)]
    assert {r.request_id for r in state.attempts.waiting} == {start.request_id for start in starts}


def test_an_attempt_that_is_not_accepted_in_time_is_cancelled_and_placed_elsewhere(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    first = only_start(ask(state)[1])
    link_node(state, "b", "m")
    effects = list(state.handle(seen.Tick(ACCEPT_SECONDS_MAX + 0.1)))
    assert isinstance(effects[0], do.CancelAttempt)
    assert effects[0].stream == first.stream
    assert only_start(effects).node_id == "b"


def test_a_prompt_may_take_long_to_read_but_not_for_ever(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    request_id, effects = ask(state)
    state.handle(seen.AttemptAccepted(0.0, only_start(effects).stream))
    for now in range(0, int(FIRST_PIECE_SECONDS_MAX), 5):
        state.handle(seen.NodeReported(float(now), "a", link, a_report("m")))
        assert state.handle(seen.Tick(float(now))) == []
    now = FIRST_PIECE_SECONDS_MAX + 0.1
    state.handle(seen.NodeReported(FIRST_PIECE_SECONDS_MAX, "a", link, a_report("m")))
    [cancel, _] = state.handle(seen.Tick(now))
    assert isinstance(cancel, do.CancelAttempt)
    [failed] = state.handle(seen.Tick(now + WAIT_SECONDS_MAX))
    assert isinstance(failed, do.FailRequest)
    assert (failed.request_id, failed.failure.code) == (request_id, "node_timeout")


def test_an_answer_that_has_begun_may_take_as_long_as_a_request_may(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    start = begun(state)
    state.handle(seen.NodeReported(REQUEST_SECONDS_MAX, "a", link, a_report("m")))
    assert state.handle(seen.Tick(REQUEST_SECONDS_MAX)) == []
    effects = list(state.handle(seen.Tick(REQUEST_SECONDS_MAX + 0.1)))
    assert isinstance(effects[0], do.CancelAttempt)
    assert isinstance(effects[-1], do.FailRequest)
    assert effects[-1].request_id == start.request_id


def test_a_caller_that_leaves_cancels_its_attempt_and_frees_the_slot(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, effects = ask(state)
    start = only_start(effects)
    assert state.handle(seen.CallerLeft(0.0, request_id)) == [
        do.CancelAttempt(start.stream, start.link, "the caller left")
    ]
    [(_, offer)] = list(state.roster.offers("m"))
    assert offer.in_flight == 0


@pytest.mark.parametrize("withdrawn", [True, False])
def test_what_an_engines_last_life_left_behind_is_not_taken_off_its_next(
    state: CoordinatorState, withdrawn: bool
) -> None:
    link = link_node(state, "a", "m")
    left_behind = only_start(ask(state)[1])
    if withdrawn:
        state.handle(seen.NodeReported(1.0, "a", link, a_report("m", state=State.STARTING, life=1)))
    state.handle(seen.NodeReported(2.0, "a", link, a_report("m", life=1)))
    [(_, offer)] = list(state.roster.offers("m"))
    assert offer.in_flight == 0
    only_start(ask(state, now=2.0)[1])
    state.handle(seen.CallerLeft(3.0, left_behind.request_id))
    assert offer.in_flight == 1


def test_late_words_about_an_ended_attempt_change_nothing(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, effects = ask(state)
    stream = only_start(effects).stream
    state.handle(seen.AttemptFinished(0.0, stream))
    for late in (
        seen.AttemptAccepted(1.0, stream),
        seen.AttemptRejected(1.0, stream, Rejection.BUSY),
        seen.FirstPieceDelivered(1.0, stream),
        seen.IdsUnknown(1.0, stream),
        seen.LastTokenDelivered(1.0, stream),
        seen.AttemptStalled(1.0, stream),
        seen.AttemptFinished(1.0, stream),
        seen.AttemptFailed(1.0, stream, LOST),
        seen.AttemptBroken(1.0, stream, LOST),
        seen.CallerLeft(1.0, request_id),
    ):
        assert state.handle(late) == []
