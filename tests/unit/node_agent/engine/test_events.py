"""An engine's events in the coordinator's envelope."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_contract.terms import Fault
from shrk_node_agent.attempts import ChoiceEnd, Envelope
from shrk_node_agent.engine.events import Batch, EngineSentNonsense, EventReader

ENVELOPE = Envelope("chatcmpl-ours", 1234, "asked-for", "call_x_")


def chunk(**choice: Any) -> bytes:
    body = {
        "id": "chatcmpl-engine",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "engine-name",
        "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, **choice}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


ROLE = chunk(delta={"role": "assistant", "content": ""})
STREAM = (
    ROLE
    + chunk(delta={"content": "Hello"}, token_ids=[5])
    + chunk(delta={"content": " you"}, token_ids=[6, 7])
    + chunk(delta={"content": ""}, token_ids=[2], finish_reason="stop", stop_reason=None)
    + b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
    + b"data: [DONE]\n\n"
)


def a_reader(ids: bool = False, usage: bool = False) -> EventReader:
    return EventReader(ENVELOPE, caller_wants_ids=ids, caller_wants_usage=usage)


def events_of(batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in batch.events]


def test_events_get_our_identity_and_lose_the_engines_token_ids() -> None:
    batch = a_reader().read(STREAM)
    events = events_of(batch)
    assert {(e["id"], e["created"], e["model"]) for e in events} == {("chatcmpl-ours", 1234, "asked-for")}
    assert b"token_ids" not in batch.part()
    assert [e["choices"][0]["delta"].get("content") for e in events] == ["", "Hello", " you"]


def test_tokens_are_counted_by_their_ids_the_last_silent_one_included() -> None:
    batch = a_reader().read(STREAM)
    assert (batch.tokens, batch.token_ids, batch.ids_known) == (4, [5, 6, 7, 2], True)


def test_the_end_and_the_usage_are_kept_for_the_coordinator_to_say() -> None:
    reader = a_reader()
    batch = reader.read(STREAM)
    assert reader.done
    assert reader.ends == (ChoiceEnd(0, "stop", b"null"),)
    assert reader.usage == {"prompt_tokens": 3, "completion_tokens": 4}
    assert b'finish_reason":"stop' not in batch.part()
    assert b"DONE" not in batch.part()


def test_last_words_that_come_with_the_end_are_still_said() -> None:
    batch = a_reader().read(chunk(delta={"content": "bye"}, token_ids=[9], finish_reason="length"))
    [event] = events_of(batch)
    assert event["choices"][0]["delta"]["content"] == "bye"
    assert event["choices"][0]["finish_reason"] is None


def test_a_caller_that_asks_for_ids_and_running_usage_gets_them() -> None:
    reader = a_reader(ids=True, usage=True)
    event = json.loads(chunk(delta={"content": "a"}, token_ids=[5])[6:]) | {"usage": {"total_tokens": 1}}
    [seen] = events_of(reader.read(b"data: " + json.dumps(event).encode() + b"\n\n"))
    assert seen["choices"][0]["token_ids"] == [5]
    assert seen["usage"] == {"total_tokens": 1}


def test_ids_that_come_silently_with_the_end_reach_a_caller_that_asks_for_them() -> None:
    last = chunk(delta={"content": ""}, token_ids=[2], finish_reason="stop")
    [seen] = events_of(a_reader(ids=True).read(last))
    assert seen["choices"][0]["token_ids"] == [2]
    assert events_of(a_reader(ids=False).read(last)) == []


def test_a_token_without_an_id_makes_the_ids_of_its_piece_useless() -> None:
    batch = a_reader().read(chunk(delta={"content": "a"}, token_ids=[5]) + chunk(delta={"content": "b"}))
    assert (batch.tokens, batch.ids_known) == (2, False)


def test_tool_calls_get_ids_that_do_not_depend_on_the_node() -> None:
    call = {"index": 1, "id": "chatcmpl-tool-random", "type": "function", "function": {"name": "f"}}
    [event] = events_of(a_reader().read(chunk(delta={"tool_calls": [call]}, token_ids=[5])))
    assert event["choices"][0]["delta"]["tool_calls"][0]["id"] == "call_x_0_1"


def test_an_error_in_the_stream_is_a_failure_with_the_engines_words() -> None:
    reader = a_reader()
    reader.read(b'data: {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}\n\n')
    assert reader.failed is not None
    assert (reader.failed.fault, reader.failed.message) == (Fault.ENGINE, "boom")


@pytest.mark.parametrize("nonsense", [b"data: {\n\n", b"data: 5\n\n", b'data: {"choices": 7}\n\n', b"data: {}\n\n"])
def test_what_cannot_be_read_is_named_nonsense_and_never_sent_on(nonsense: bytes) -> None:
    with pytest.raises(EngineSentNonsense):
        a_reader().read(nonsense)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_wherever_the_stream_is_cut_the_same_comes_out(cuts: list[int]) -> None:
    reader = a_reader()
    points = [0, *sorted(cuts), len(STREAM)]
    batches = [reader.read(STREAM[a:b]) for a, b in itertools.pairwise(points)]
    assert b"".join(b.part() for b in batches) == a_reader().read(STREAM).part()
    assert [i for b in batches for i in b.token_ids] == [5, 6, 7, 2]
    assert reader.done
