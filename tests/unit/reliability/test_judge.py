"""The judge passes an answer that was carried on well, however it is cut, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reliability.judge import Call, NotWhole, differences, read_stream, read_whole

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def opening(index: int = 0, name: str = "note", call_id: str = "call_1") -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, "id": call_id, "type": "function", "function": {"name": name}}])


def arguments(text: str, index: int = 0) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, "function": {"arguments": text}}])


ROLE = delta(role="assistant", content="")
END = delta(finish="stop")
COUNTED: dict[str, Any] = {"choices": [], "usage": USAGE}


def stream(*events: dict[str, Any], done: str = "data: [DONE]\n\n", **names: Any) -> bytes:
    envelope = {"id": "chatcmpl-1", "created": 7, "model": "m", **names}
    return ("".join(f"data: {json.dumps(envelope | event)}\n\n" for event in events) + done).encode()


def text_stream(*texts: str, **names: Any) -> bytes:
    return stream(ROLE, *(delta(content=text) for text in texts), END, COUNTED, **names)


def test_the_same_answer_cut_otherwise_and_named_otherwise_is_no_different() -> None:
    one = read_stream(text_stream("a", " b"))
    other = read_stream(text_stream("a b", id="chatcmpl-2", created=8))
    assert differences(one, other) == ""


def test_a_lost_word_is_a_difference() -> None:
    assert "text" in differences(read_stream(text_stream("a")), read_stream(text_stream("a", " b")))


def test_a_repeated_word_is_a_difference() -> None:
    assert "text" in differences(read_stream(text_stream("a", "a")), read_stream(text_stream("a")))


def test_another_finish_reason_or_usage_is_a_difference() -> None:
    unbroken = read_stream(text_stream("a"))
    other_end = read_stream(stream(ROLE, delta(content="a"), delta(finish="length"), COUNTED))
    assert "finish" in differences(other_end, unbroken)
    details = {"choices": [], "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 2}}}
    assert "usage" in differences(read_stream(stream(ROLE, delta(content="a"), END, details)), unbroken)


def test_tool_calls_are_put_together_and_their_ids_do_not_matter() -> None:
    one = read_stream(stream(ROLE, opening(), arguments('{"a"'), arguments(": 1}"), END, COUNTED))
    other = read_stream(stream(ROLE, opening(call_id="call_9"), arguments('{"a": 1}'), END, COUNTED))
    assert one.calls == [Call("note", '{"a": 1}')]
    assert differences(one, other) == ""


def test_other_arguments_are_a_difference() -> None:
    one, other = (read_stream(stream(ROLE, opening(), arguments(text), END, COUNTED)) for text in ("{}", "{ }"))
    assert "calls" in differences(one, other)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (text_stream("a", done=""), "does not end with one"),
        (text_stream("a") + b"data: [DONE]\n\n", "does not end with one"),
        (text_stream("a", done='data: {"id"'), "middle of an event"),
        (stream(ROLE, {"error": {"message": "lost"}}), "error event"),
        (stream(ROLE, delta(role="assistant"), END, COUNTED), "told twice"),
        (stream(delta(content="a"), END, COUNTED), "this order"),
        (stream(ROLE, delta(content="a"), COUNTED), "this order"),
        (stream(ROLE, delta(content="a"), END), "this order"),
        (stream(ROLE, END, delta(content="a"), COUNTED), "after its finish"),
        (stream(ROLE, END, END, COUNTED), "after its finish"),
        (stream(ROLE, END, COUNTED, COUNTED), "after the usage"),
        (stream(ROLE, opening(), opening(), END, COUNTED), "opened as number 1"),
        (stream(ROLE, opening(), opening(index=1), END, COUNTED), "have the ids"),
        (stream(ROLE, arguments("{}"), opening(), END, COUNTED), "before it is opened"),
    ],
)
def test_a_stream_that_no_client_should_see_is_named(body: bytes, reason: str) -> None:
    with pytest.raises(NotWhole, match=reason):
        read_stream(body)


def test_an_answer_whose_name_changes_in_the_middle_is_not_whole() -> None:
    before, after = stream(ROLE, done=""), stream(END, COUNTED, id="chatcmpl-2")
    with pytest.raises(NotWhole, match="change"):
        read_stream(before + after)


def test_comments_between_events_are_no_part_of_the_answer() -> None:
    assert differences(read_stream(b": keep-alive\n\n" + text_stream("a")), read_stream(text_stream("a"))) == ""


def whole(text: str = "a", **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "1", "created": 7, "choices": [choice], "usage": USAGE, **fields}).encode()


def test_answers_that_are_not_streamed_are_held_against_each_other_as_well() -> None:
    assert differences(read_whole(whole()), read_whole(whole(id="2", created=8))) == ""
    assert "text" in differences(read_whole(whole("b")), read_whole(whole()))


def test_half_an_answer_and_an_error_are_no_answers() -> None:
    for body in (whole()[:-9], b'{"error": {}}'):
        with pytest.raises(NotWhole):
            read_whole(body)
