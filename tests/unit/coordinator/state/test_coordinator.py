"""The coordinator's one door: placement, re-placement, failure, and the end of every request."""

from __future__ import annotations

import random

import pytest

from shrk_contract.terms import SILENCE_SECONDS_MAX, Endpoint, Fault, Rejection, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.attempts import (
    ACCEPT_SECONDS_MAX,
    FAILURES_MAX,
    FIRST_PIECE_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
)
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail
from support.states import a_report, ask, link_node, only_start

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
    assert effects == [do.RefuseRequest(request_id, do.NoNode("m", (("loading", 1),)))]


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
    state.handle(seen.NodeDraining(0.0, "a", link))
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


def test_a_failure_after_the_first_piece_ends_the_request(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    request_id, effects = ask(state)
    start = only_start(effects)
    state.handle(seen.FirstPieceDelivered(0.0, start.stream))
    assert state.handle(seen.AttemptFailed(0.0, start.stream, LOST)) == [
        do.ReleaseStream(start.stream, start.link),
        do.FailRequest(request_id, LOST, 1),
    ]


def test_a_callers_own_error_ends_the_request_and_asks_nobody_else(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    request_id, effects = ask(state)
    start = only_start(effects)
    assert do.FailRequest(request_id, BAD_REQUEST, 1) in state.handle(
        seen.AttemptFailed(0.0, start.stream, BAD_REQUEST)
    )


def test_a_rejection_is_no_failure_and_when_all_reject_the_caller_hears_that_nobody_is_free(
    state: CoordinatorState,
) -> None:
    link_node(state, "a", "m")
    link_node(state, "b", "m")
    request_id, effects = ask(state)
    second = only_start(list(state.handle(seen.AttemptRejected(0.0, only_start(effects).stream, Rejection.BUSY))))
    effects = list(state.handle(seen.AttemptRejected(0.0, second.stream, Rejection.BUSY)))
    assert effects[-1] == do.RefuseRequest(request_id, do.NoNode("m", (("already_tried", 2),)))


def test_a_node_that_rejects_what_it_has_begun_has_broken_the_contract(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    start = only_start(ask(state)[1])
    state.handle(seen.FirstPieceDelivered(0.0, start.stream))
    effects = list(state.handle(seen.AttemptRejected(0.0, start.stream, Rejection.BUSY)))
    assert isinstance(effects[0], do.CancelAttempt)
    assert isinstance(effects[-1], do.FailRequest)
    assert effects[-1].failure.code == "node_broke_contract"


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


def test_a_lost_link_moves_every_attempt_that_has_not_begun_to_answer(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    starts = [only_start(ask(state)[1]) for _ in range(3)]
    link_node(state, "b", "m")
    state.handle(seen.FirstPieceDelivered(0.0, starts[0].stream))
    effects = list(state.handle(seen.LinkClosed(1.0, "a", starts[0].link, "cut")))
    moved = [e for e in effects if isinstance(e, do.StartAttempt)]
    failed = [e for e in effects if isinstance(e, do.FailRequest)]
    assert {e.request_id for e in moved} == {s.request_id for s in starts[1:]}
    assert {e.node_id for e in moved} == {"b"}
    assert [e.request_id for e in failed] == [starts[0].request_id]


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
    state.handle(seen.NodeReported(FIRST_PIECE_SECONDS_MAX, "a", link, a_report("m")))
    effects = list(state.handle(seen.Tick(FIRST_PIECE_SECONDS_MAX + 0.1)))
    [failed] = [e for e in effects if isinstance(e, do.FailRequest)]
    assert (failed.request_id, failed.failure.code) == (request_id, "node_timeout")


def test_a_caller_that_leaves_cancels_its_attempt_and_frees_the_slot(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, effects = ask(state)
    start = only_start(effects)
    assert state.handle(seen.CallerLeft(0.0, request_id)) == [
        do.CancelAttempt(start.stream, start.link, "the caller left")
    ]
    [(_, offer)] = list(state.roster.offers("m"))
    assert offer.in_flight == 0


def test_late_words_about_an_ended_attempt_change_nothing(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, effects = ask(state)
    stream = only_start(effects).stream
    state.handle(seen.AttemptFinished(0.0, stream))
    for late in (
        seen.AttemptAccepted(1.0, stream),
        seen.AttemptRejected(1.0, stream, Rejection.BUSY),
        seen.FirstPieceDelivered(1.0, stream),
        seen.AttemptFinished(1.0, stream),
        seen.AttemptFailed(1.0, stream, LOST),
        seen.AttemptBroken(1.0, stream, LOST),
        seen.CallerLeft(1.0, request_id),
    ):
        assert state.handle(late) == []


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_every_request_ends_exactly_once_and_every_slot_comes_back(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    state = CoordinatorState()
    now = 0.0
    links = {node: link_node(state, node, "m") for node in "abc"}
    open_requests: set[bytes] = set()
    ended: dict[bytes, int] = {}

    def take(effects: list[do.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, do.RefuseRequest | do.FailRequest):
                ended[effect.request_id] = ended.get(effect.request_id, 0) + 1

    for _ in range(150):
        now += rng.choice((0.0, 0.1, 1.0, 6.0))
        streams = list(state.attempts.by_stream)
        stream = rng.choice(streams) if streams else 0
        node = rng.choice("abc")
        match rng.randrange(10):
            case 0 | 1 | 2:
                request_id, effects = ask(state, now=now, streaming=rng.random() < 0.7)
                open_requests.add(request_id)
                take(effects)
            case 3:
                take(list(state.handle(seen.AttemptAccepted(now, stream))))
            case 4:
                take(list(state.handle(seen.FirstPieceDelivered(now, stream))))
            case 5:
                attempt = state.attempts.by_stream.get(stream)
                if attempt is not None:
                    ended[attempt.request.request_id] = ended.get(attempt.request.request_id, 0) + 1
                take(list(state.handle(seen.AttemptFinished(now, stream))))
            case 6:
                take(list(state.handle(seen.AttemptFailed(now, stream, rng.choice((LOST, BAD_REQUEST))))))
            case 7:
                take(list(state.handle(seen.AttemptRejected(now, stream, Rejection.BUSY))))
            case 8:
                take(list(state.handle(seen.LinkClosed(now, node, links[node], "cut"))))
                links[node] = link_node(state, node, "m", now=now)
            case 9:
                for linked, link in links.items():
                    state.handle(seen.NodeReported(now, linked, link, a_report("m")))
                take(list(state.handle(seen.Tick(now))))
    for request_id in list(state.attempts.requests):
        ended[request_id] = ended.get(request_id, 0) + 1
        take(list(state.handle(seen.CallerLeft(now, request_id))))
    assert ended == dict.fromkeys(open_requests, 1)
    assert not state.attempts.by_stream
    assert all(offer.in_flight == 0 for _, offer in state.roster.offers("m"))
