"""A request and its attempts: what ends a row of failures, and when no other attempt may follow."""

from __future__ import annotations

from shrk_contract.terms import EngineReport, State, Status
from shrk_coordinator.state.attempts import Attempts
from shrk_coordinator.state.request import (
    ATTEMPTS_MAX,
    FAILURES_MAX,
    FIRST_PIECE_SECONDS_MAX,
    REQUEST_SECONDS_MAX,
    Attempt,
    Phase,
    Request,
)
from shrk_coordinator.state.served import Offer
from support.states import CHAT, PIN


def a_request(*, streaming: bool = True) -> Request:
    return Request(b"1" * 16, "m", CHAT, streaming=streaming, deadline=REQUEST_SECONDS_MAX)


def begin(attempts: Attempts, request: Request, now: float = 0.0) -> Attempt:
    return attempts.begin(now, request, Offer("a", 1, EngineReport("m", "m", Status(State.ONLINE), PIN)))


def test_a_request_is_exhausted_by_attempts_or_by_failures_in_a_row() -> None:
    request = a_request()
    assert not request.exhausted
    request.attempts = ATTEMPTS_MAX
    assert request.exhausted
    request.attempts, request.failures = 1, FAILURES_MAX
    assert request.exhausted


def test_a_token_ends_a_row_of_failures_and_anything_less_lengthens_it() -> None:
    attempts, request = Attempts(), a_request()
    attempts.open(request)
    request.failures = 2
    attempt = begin(attempts, request)
    for phase, failures in ((Phase.ASKED, 3), (Phase.READING, 3), (Phase.ANSWERING, 0)):
        attempt.phase = phase
        assert attempt.failures_after == failures


def test_an_attempt_is_moved_only_where_its_successor_breaks_no_bound() -> None:
    attempts, request = Attempts(), a_request()
    attempts.open(request)
    attempt = begin(attempts, request)
    request.failures = FAILURES_MAX - 2
    assert attempt.movable
    request.failures = FAILURES_MAX - 1
    assert not attempt.movable
    attempt.phase = Phase.ANSWERING
    assert attempt.movable
    request.attempts = ATTEMPTS_MAX
    assert not attempt.movable
    request.attempts, attempt.phase = 1, Phase.CLOSING
    assert not attempt.movable


def test_a_whole_answer_may_take_as_long_as_its_request_and_a_first_token_may_not() -> None:
    for streaming, seconds in ((True, FIRST_PIECE_SECONDS_MAX), (False, REQUEST_SECONDS_MAX)):
        attempts, request = Attempts(), a_request(streaming=streaming)
        attempts.open(request)
        attempt = begin(attempts, request)
        attempt.accepted(0.0)
        assert attempt.deadline == seconds


def test_its_first_piece_ends_a_row_of_failures_and_remembers_where_and_with_what() -> None:
    attempts, request = Attempts(), a_request()
    attempts.open(request)
    request.failures = 2
    attempt = begin(attempts, request)
    attempt.spoke(3.0, 7)
    assert (request.delivered, request.delivered_at, request.failures, request.pin) == (True, 3.0, 0, PIN)
    assert (attempt.spoke_at, attempt.first_index) == (3.0, 7)
