"""Requests and attempts under way."""

from __future__ import annotations

from shrk_contract.terms import EngineReport, State, Status
from shrk_coordinator.state.attempts import Attempts
from shrk_coordinator.state.request import ACCEPT_SECONDS_MAX, Attempt, Request
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from support.states import CHAT, PIN, a_failure


def a_request(number: int = 1, model: str = "m") -> Request:
    return Request(number.to_bytes(16, "big"), model, CHAT, streaming=True, deadline=100.0)


def begin(attempts: Attempts, request: Request, now: float = 0.0, link: int = 1) -> Attempt:
    return attempts.begin(now, request, Offer("a", link, EngineReport("m", "m", Status(State.ONLINE), PIN)))


def test_attempts_are_found_by_stream_and_by_link_until_they_end() -> None:
    attempts = Attempts()
    first, second = a_request(1), a_request(2)
    for request in (first, second):
        attempts.open(request)
    one = begin(attempts, first, link=7)
    two = begin(attempts, second, link=7)
    assert attempts.on_link(7) == [one, two]
    attempts.end(one)
    assert attempts.on_link(7) == [two]
    attempts.end(two)
    assert attempts.on_link(7) == []
    attempts.close(first)
    attempts.close(second)
    assert not attempts.requests


def test_streams_are_never_used_twice() -> None:
    attempts = Attempts()
    request = a_request()
    attempts.open(request)
    streams = set()
    for _ in range(5):
        attempt = begin(attempts, request)
        streams.add(attempt.stream)
        attempts.end(attempt)
    assert len(streams) == 5
    assert request.attempts == 5


def test_an_attempt_is_overdue_when_its_node_says_nothing() -> None:
    attempts = Attempts()
    request = a_request()
    attempts.open(request)
    attempt = begin(attempts, request, now=10.0)
    assert attempts.overdue(10.0 + ACCEPT_SECONDS_MAX) == []
    assert attempts.overdue(10.1 + ACCEPT_SECONDS_MAX) == [attempt]


def test_links_with_attempts_are_those_that_have_any_left() -> None:
    attempts = Attempts()
    first, second = a_request(1), a_request(2)
    for request in (first, second):
        attempts.open(request)
    one, two = begin(attempts, first, link=7), begin(attempts, second, link=8)
    assert attempts.links() == [7, 8]
    attempts.end(one)
    assert attempts.links() == [8]
    attempts.end(two)
    assert attempts.links() == []


def test_of_each_model_so_many_requests_wait_and_those_that_have_begun_always_do() -> None:
    attempts, lost = Attempts(), a_failure("node_lost")
    for number in range(WAITING_MAX):
        assert attempts.waiting.join(0.0, a_request(number), lost)
    assert not attempts.waiting.join(0.0, a_request(1000), lost)
    assert attempts.waiting.join(0.0, a_request(1001, model="another"), lost)
    begun = a_request(1002)
    begun.delivered = True
    assert attempts.waiting.join(0.0, begun, lost)
    assert len(attempts.waiting) == WAITING_MAX + 2


def test_those_that_have_begun_take_nobodys_place_among_the_waiting() -> None:
    attempts, lost = Attempts(), a_failure("node_lost")
    for number in range(WAITING_MAX * 2):
        begun = a_request(number)
        begun.delivered = True
        assert attempts.waiting.join(0.0, begun, lost)
    assert attempts.waiting.join(0.0, a_request(1000), lost)


def test_a_request_waits_until_its_bound_or_its_own_deadline_whichever_is_first() -> None:
    attempts, lost, request = Attempts(), a_failure("node_lost"), a_request()
    attempts.waiting.join(5.0, request, lost)
    assert (request.wait_until, request.lost) == (5.0 + WAIT_SECONDS_MAX, lost)
    attempts.waiting.join(request.deadline - 1, request, lost)
    assert request.wait_until == request.deadline


def test_a_request_that_is_asked_of_a_node_or_ends_waits_no_more() -> None:
    attempts, lost = Attempts(), a_failure("node_lost")
    asked, ended = a_request(1), a_request(2)
    for request in (asked, ended):
        attempts.open(request)
        attempts.waiting.join(0.0, request, lost)
    begin(attempts, asked)
    attempts.close(ended)
    assert not attempts.waiting
