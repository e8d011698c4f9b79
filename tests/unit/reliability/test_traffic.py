"""What a caller was told is taken for what it is, and callers come as often as they should."""

from __future__ import annotations

import json

import pytest

from reliability.caller import Answer
from reliability.traffic import Told, chat, in_turns, late, problems, steadily, told

BODY = chat("m", "hello", 2)


def _stream(tokens: int) -> bytes:
    named = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": "a b"}}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"completion_tokens": tokens}},
    ]
    lines = [f"data: {json.dumps(named | event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def test_an_answer_with_all_of_its_tokens_is_whole() -> None:
    one = told(Answer(200, "req_1", _stream(2), pieces=[3.5, 3.6]), BODY, 7, 3.0, 4.0)
    assert (one.whole, one.refused, one.first_seconds, one.seconds) == (True, False, 0.5, 1.0)


@pytest.mark.parametrize(("body", "problem"), [(_stream(1), "1 tokens instead of 2"), (_stream(2)[:-8], "")])
def test_an_answer_that_lacks_something_is_not_whole(body: bytes, problem: str) -> None:
    one = told(Answer(200, "req_1", body), BODY, 0, 0.0, 1.0)
    assert not one.whole
    assert problem in one.problem


@pytest.mark.parametrize(("status", "refused"), [(503, True), (429, True), (500, False), (422, False)])
def test_an_error_is_told_with_its_code_and_only_some_say_come_again(status: int, refused: bool) -> None:
    answer = Answer(status, "req_1", b'{"error": {"code": "no_node_available"}}', "2")
    one = told(answer, BODY, 0, 0.0, 1.0)
    assert (one.code, one.retry_after, one.refused, one.whole) == ("no_node_available", "2", refused, False)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error": "no"}'])
def test_an_error_in_other_words_has_no_code(body: bytes) -> None:
    assert told(Answer(502, "req_1", body), BODY, 0, 0.0, 1.0).code == ""


@pytest.mark.parametrize(("slow", "failures"), [(1, 0), (2, 2)])
def test_one_in_a_hundred_may_be_late(slow: int, failures: int) -> None:
    assert late([0.01] * (100 - slow) + [9.0] * slow, 0.05) == failures


def test_a_broken_connection_is_a_problem_that_can_be_tried_again() -> None:
    broken, whole = Told(3, 0.0, 1.0, problem="ClientError: gone"), Told(4, 0.0, 1.0, 200)
    assert problems([broken, whole], "stream", "python -m x") == ("stream 3 (): ClientError: gone  [python -m x]",)


async def _ask(number: int) -> Told:
    return Told(number, 0.0, 1.0, 200)


async def test_at_a_steady_pace_each_number_is_asked_once() -> None:
    done: list[Told] = []
    await steadily(_ask, 20, 10_000.0, done.append)
    assert sorted(one.number for one in done) == list(range(20))


async def test_in_turns_whoever_was_told_asks_again() -> None:
    done: list[Told] = []
    asked: list[int] = []

    async def ask(number: int) -> Told:
        asked.append(number)
        assert len(asked) - len(done) <= 3, "three callers ask three things at a time"
        return await _ask(number)

    await in_turns(ask, 3, 0.01, done.append)
    assert sorted(asked) == sorted(one.number for one in done) == list(range(len(asked)))
