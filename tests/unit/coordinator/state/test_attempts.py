"""Requests and attempts under way."""

from __future__ import annotations

from shrk_coordinator.state.attempts import ACCEPT_SECONDS_MAX, ATTEMPTS_MAX, FAILURES_MAX, Attempts, Request
from support.states import CHAT


def a_request(number: int = 1) -> Request:
    return Request(number.to_bytes(16, "big"), "m", CHAT, streaming=True, deadline=100.0)


def test_attempts_are_found_by_stream_and_by_link_until_they_end() -> None:
    attempts = Attempts()
    first, second = a_request(1), a_request(2)
    for request in (first, second):
        attempts.open(request)
    one = attempts.begin(0.0, first, "a", link=7)
    two = attempts.begin(0.0, second, "a", link=7)
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
        attempt = attempts.begin(0.0, request, "a", link=1)
        streams.add(attempt.stream)
        attempts.end(attempt)
    assert len(streams) == 5
    assert request.attempts == 5


def test_an_attempt_is_overdue_when_its_node_says_nothing() -> None:
    attempts = Attempts()
    request = a_request()
    attempts.open(request)
    attempt = attempts.begin(10.0, request, "a", link=1)
    assert attempts.overdue(10.0 + ACCEPT_SECONDS_MAX) == []
    assert attempts.overdue(10.1 + ACCEPT_SECONDS_MAX) == [attempt]


def test_a_request_is_exhausted_by_attempts_or_by_failures_in_a_row() -> None:
    request = a_request()
    assert not request.exhausted
    request.attempts = ATTEMPTS_MAX
    assert request.exhausted
    request.attempts, request.failures = 1, FAILURES_MAX
    assert request.exhausted
