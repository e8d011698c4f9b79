"""The journal: what became of each request, and of each of its attempts."""

from __future__ import annotations

import pytest

from shrk_contract.terms import CANNOT_RESUME, Rejection, ResumeMethod
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import RequestArrived
from shrk_coordinator.state.journal import (
    CODE_LENGTH_MAX,
    REASON_LENGTH_MAX,
    AttemptEntry,
    Entry,
    Journal,
    Outcome,
)
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX
from support.states import CHAT, PIN, a_failure, ask, begun, fail, link_node, lose, only_start


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def entry_of(state: CoordinatorState, request_id: bytes) -> Entry:
    entry = state.journal.find(request_id)
    assert entry is not None
    return entry


def test_a_request_is_written_down_with_whose_it_is_and_what_it_asks(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    request_id, _ = ask(state, now=3.0, streaming=False)
    entry = entry_of(state, request_id)
    assert (entry.key_id, entry.model, entry.endpoint, entry.streaming) == ("key", "m", CHAT, False)
    assert (entry.arrived_at, entry.ended_at, entry.outcome) == (3.0, None, Outcome.UNDER_WAY)
    assert entry.attempts == [AttemptEntry(1, "a", 3.0, None)]


def test_a_continued_answer_shows_every_attempt_its_seam_and_what_ended_it(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state, now=1.0)
    link_node(state, "b", "m", pin=PIN, now=1.0)
    by_ids = only_start(lose(state, start, now=2.0))
    replay = only_start(fail(state, by_ids, CANNOT_RESUME, now=3.0))
    state.handle(seen.FirstPieceDelivered(4.0, replay.stream, 17))
    state.handle(seen.AttemptFinished(5.0, replay.stream, 40))
    entry = entry_of(state, start.request_id)
    assert (entry.outcome, entry.ended_at, entry.tokens) == (Outcome.FINISHED, 5.0, 40)
    first, second, third = entry.attempts
    assert first == AttemptEntry(1, "a", 1.0, None, 1.0, 0, 2.0, Outcome.FAILED, "node_lost", "the node was lost: cut")
    assert second == AttemptEntry(
        2,
        "b",
        2.0,
        ResumeMethod.BY_IDS,
        None,
        None,
        3.0,
        Outcome.FAILED,
        CANNOT_RESUME,
        f"it ended with {CANNOT_RESUME}",
    )
    assert third == AttemptEntry(3, "b", 3.0, ResumeMethod.REPLAY, 4.0, 17, 5.0, Outcome.FINISHED)


def test_what_was_moved_or_rejected_is_told_from_what_failed(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    second = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    link_node(state, "c", "m")
    state.handle(seen.AttemptRejected(2.0, second.stream, Rejection.BUSY))
    outcomes = [(attempt.outcome, attempt.code) for attempt in entry_of(state, start.request_id).attempts]
    assert outcomes == [
        (Outcome.HANDED_OVER, "node_stalled"),
        (Outcome.REJECTED, ""),
        (Outcome.UNDER_WAY, ""),
    ]


def test_each_way_in_which_a_request_ends_has_its_outcome(state: CoordinatorState) -> None:
    refused, _ = ask(state)
    link_node(state, "a", "m")
    finished, cancelled, failed = begun(state), begun(state), only_start(ask(state)[1])
    state.handle(seen.AttemptFinished(1.0, finished.stream, 3))
    state.handle(seen.CallerLeft(1.0, cancelled.request_id))
    fail(state, failed, "engine_nonsense", now=1.0)
    completed = begun(state)
    state.handle(seen.LastTokenDelivered(1.0, completed.stream))
    lose(state, completed, now=1.0)
    ends = {
        refused: Outcome.REFUSED,
        finished.request_id: Outcome.FINISHED,
        cancelled.request_id: Outcome.CANCELLED,
        failed.request_id: Outcome.FAILED,
        completed.request_id: Outcome.FINISHED,
    }
    assert {request_id: entry_of(state, request_id).outcome for request_id in ends} == ends
    assert entry_of(state, cancelled.request_id).attempts[-1].outcome is Outcome.CANCELLED
    assert entry_of(state, refused).attempts == []


def test_a_request_that_waits_is_under_way_until_it_fails(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    lose(state, start, now=1.0)
    assert entry_of(state, start.request_id).outcome is Outcome.UNDER_WAY
    state.handle(seen.Tick(1.0 + WAIT_SECONDS_MAX))
    entry = entry_of(state, start.request_id)
    assert (entry.outcome, entry.ended_at) == (Outcome.FAILED, 1.0 + WAIT_SECONDS_MAX)


def test_a_request_that_ended_ends_no_second_time(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    state.handle(seen.AttemptFinished(1.0, start.stream, 3))
    for late in (
        seen.AttemptFinished(2.0, start.stream, 4),
        seen.AttemptFailed(2.0, start.stream, a_failure()),
        seen.CallerLeft(2.0, start.request_id),
    ):
        state.handle(late)
    entry = entry_of(state, start.request_id)
    assert (entry.outcome, entry.ended_at, entry.tokens) == (Outcome.FINISHED, 1.0, 3)


def arrive(journal: Journal, number: int) -> bytes:
    request_id = number.to_bytes(16, "big")
    journal.arrived(RequestArrived(0.0, request_id, "m", CHAT, streaming=True))
    return request_id


def test_only_the_last_ended_requests_are_remembered_and_all_that_are_under_way() -> None:
    journal = Journal(ended_max=3)
    under_way = arrive(journal, 0)
    ended = [arrive(journal, number) for number in range(1, 10)]
    for request_id in ended:
        journal.ended(1.0, request_id, Outcome.FINISHED)
    assert [journal.find(request_id) is not None for request_id in ended] == [False] * 6 + [True] * 3
    assert journal.find(under_way) is not None
    assert journal.find(b"never seen") is None


def test_a_nodes_own_words_are_cut_short_and_move_nobodys_cursor() -> None:
    journal = Journal()
    request_id = arrive(journal, 1)
    journal.attempted(0.0, request_id, 1, "a", None)
    journal.attempt_ended(1.0, request_id, 1, Outcome.FAILED, "c" * 1_000, "\x1b[2J up\nand \u202eaway " + "r" * 4_000)
    entry = journal.find(request_id)
    assert entry is not None
    [attempt] = entry.attempts
    assert attempt.code == "c" * CODE_LENGTH_MAX
    assert attempt.reason.startswith(" [2J up and  away rrr")
    assert len(attempt.reason) == REASON_LENGTH_MAX
