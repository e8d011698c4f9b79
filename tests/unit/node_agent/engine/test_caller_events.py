"""An engine's events in the coordinator's envelope."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shrk_node_agent.attempts import ChoiceEnd, Envelope
from shrk_node_agent.engine.caller_events import Batch, CallerEvents, Wishes
from shrk_node_agent.engine.events import EngineSentNonsense, Event
from shrk_node_agent.engine.text_digest import NOTHING_SAID, TextDigest

ENVELOPE = Envelope("chatcmpl-ours", 1234, "asked-for", "call_x_")


def chunk(*ids: int, **choice: Any) -> Event:
    told = {"token_ids": [*ids]} if ids else {}
    whole = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, **choice, **told}
    body = {"id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1, "model": "engine-name"}
    return Event(body | {"choices": [whole]}, len(ids), [*ids])


def role() -> Event:
    return chunk(delta={"role": "assistant", "content": ""})


def opening(index: int = 0, name: str = "f", **function: Any) -> dict[str, Any]:
    return {"index": index, "id": "random", "type": "function", "function": {"name": name, **function}}


def written(caller: CallerEvents, *events: Event) -> Batch:
    batch = Batch()
    for event in events:
        caller.write(event, batch)
    return batch


def events_of(batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in batch.events]


def a_caller(**wishes: bool) -> CallerEvents:
    return CallerEvents(ENVELOPE, Wishes(**wishes))


def a_resumed_caller(**wishes: bool) -> CallerEvents:
    return CallerEvents(ENVELOPE, Wishes(**wishes), TextDigest())


def test_events_get_our_identity_and_lose_the_engines_token_ids() -> None:
    stream = (role(), chunk(5, delta={"content": "Hello"}), chunk(6, 7, delta={"content": " you"}))
    batch = written(a_caller(), *stream)
    events = events_of(batch)
    assert {(e["id"], e["created"], e["model"]) for e in events} == {("chatcmpl-ours", 1234, "asked-for")}
    assert b"token_ids" not in batch.part()
    assert [e["choices"][0]["delta"].get("content") for e in events] == ["", "Hello", " you"]
    assert (batch.tokens, batch.token_ids, batch.ids_known) == (3, [5, 6, 7], True)


def test_the_end_is_kept_for_the_coordinator_to_say() -> None:
    caller = a_caller()
    batch = written(caller, chunk(2, delta={"content": ""}, finish_reason="stop", stop_reason=None))
    assert caller.ends == (ChoiceEnd(0, "stop", b"null"),)
    assert (batch.events, batch.tokens, batch.end) == ([], 1, ChoiceEnd(0, "stop", b"null"))


def test_last_words_that_come_with_the_end_are_still_said() -> None:
    batch = written(a_caller(), chunk(9, delta={"content": "bye"}, finish_reason="length"))
    [event] = events_of(batch)
    assert event["choices"][0]["delta"]["content"] == "bye"
    assert event["choices"][0]["finish_reason"] is None


def test_being_given_up_is_no_end_that_a_piece_may_tell() -> None:
    caller = a_caller()
    assert written(caller, chunk(finish_reason="abort")).end is None
    assert caller.ends == (ChoiceEnd(0, "abort"),)


def test_of_several_choices_no_piece_tells_the_end_or_a_digest() -> None:
    caller = a_caller(one_choice=False)
    batch = written(caller, chunk(5, delta={"content": "a"}, finish_reason="stop"), chunk(6, index=1))
    assert (batch.end, caller.text_digest) == (None, 0)
    assert caller.ends == (ChoiceEnd(0, "stop"),)


def test_a_choice_gets_its_number_among_all_that_the_caller_asked_for() -> None:
    caller = CallerEvents(replace(ENVELOPE, choice_index=3), Wishes())
    batch = written(caller, chunk(5, delta={"tool_calls": [opening(1)]}), chunk(2, finish_reason="stop"))
    [event] = events_of(batch)
    assert event["choices"][0]["index"] == 3
    assert event["choices"][0]["delta"]["tool_calls"][0]["id"] == "call_x_3_1"
    assert batch.end == ChoiceEnd(3, "stop")


def test_a_caller_that_asks_for_ids_and_running_usage_gets_them() -> None:
    event = chunk(5, delta={"content": "a"})
    event.body |= {"usage": {"total_tokens": 1}, "prompt_token_ids": [1, 2]}
    caller = a_caller(ids=True, running_usage=True)
    [seen] = events_of(written(caller, event))
    assert (seen["choices"][0]["token_ids"], seen["usage"]) == ([5], {"total_tokens": 1})
    assert seen["prompt_token_ids"] == caller.prompt_ids == [1, 2]


def test_the_prompts_ids_are_kept_for_the_coordinator_wherever_the_engine_tells_them() -> None:
    chat, completion = role(), chunk(5, delta={"content": "a"}, prompt_token_ids=[1, 2])
    chat.body["prompt_token_ids"] = [1, 2]
    for event in (chat, completion):
        caller = a_caller()
        batch = written(caller, event, chunk(6, delta={"content": "b"}, prompt_token_ids=None))
        assert caller.prompt_ids == [1, 2]
        assert b"prompt_token_ids" not in batch.part()


def test_ids_that_come_silently_with_the_end_reach_a_caller_that_asks_for_them() -> None:
    [seen] = events_of(written(a_caller(ids=True), chunk(2, finish_reason="stop")))
    assert seen["choices"][0]["token_ids"] == [2]
    assert events_of(written(a_caller(), chunk(2, finish_reason="stop"))) == []


def test_a_token_without_an_id_makes_the_ids_of_its_piece_useless() -> None:
    untold = Event(chunk(delta={"content": "b"}).body, 1, None)
    batch = written(a_caller(), chunk(5, delta={"content": "a"}), untold)
    assert (batch.tokens, batch.ids_known) == (2, False)


def test_the_digest_is_of_all_that_was_said() -> None:
    caller, expected = a_caller(), TextDigest()
    assert caller.text_digest == NOTHING_SAID
    written(caller, role(), chunk(5, delta={"content": "a"}), chunk(6, delta={"tool_calls": [opening(arguments="{")]}))
    expected.add("content", "a")
    expected.open_call(0, "f")
    expected.add("call 0", "{")
    assert caller.text_digest == expected.value


def test_a_role_is_said_once_and_a_tool_call_opened_once() -> None:
    again = chunk(6, delta={"tool_calls": [opening(arguments="{}")]})
    batch = written(a_caller(), role(), role(), chunk(5, delta={"tool_calls": [opening()]}), again)
    events = [event["choices"][0]["delta"] for event in events_of(batch)]
    assert [("role" in delta) for delta in events] == [True, False, False, False]
    assert events[-1]["tool_calls"] == [{"index": 0, "function": {"arguments": "{}"}}]


def test_every_choice_says_its_own_role() -> None:
    batch = written(a_caller(one_choice=False), role(), chunk(index=1, delta={"role": "assistant"}))
    assert all("role" in event["choices"][0]["delta"] for event in events_of(batch))


def test_a_resumed_answer_says_no_role_no_prompt_and_nothing_without_words() -> None:
    first = role()
    first.body["prompt_token_ids"] = [1, 2]
    caller = a_resumed_caller(ids=True)
    assert written(caller, first, chunk(delta={})).events == []
    assert caller.prompt_ids == [1, 2]
    words = chunk(5, delta={"role": "assistant", "content": "a"}, prompt_token_ids=[1])
    [event] = events_of(written(a_resumed_caller(ids=True), words))
    assert event["choices"][0]["delta"] == {"content": "a"}
    assert "prompt_token_ids" not in event["choices"][0]


def test_calls_that_another_node_opened_are_not_opened_again() -> None:
    caller = a_resumed_caller()
    caller.said({"content": "a", "tool_calls": [opening(arguments="{")]})
    delta = {"tool_calls": [opening(arguments="}"), opening(1, "g")]}
    [event] = events_of(written(caller, chunk(5, delta=delta)))
    first, second = event["choices"][0]["delta"]["tool_calls"]
    assert first == {"index": 0, "function": {"arguments": "}"}}
    assert (second["id"], second["function"]["name"]) == ("call_x_0_1", "g")
    expected = TextDigest()
    expected.add_delta({"content": "a", "tool_calls": [opening(arguments="{}"), opening(1, "g")]})
    assert caller.text_digest == expected.value


@pytest.mark.parametrize("body", [{}, {"choices": 7}, {"choices": [{}]}, {"choices": [{"index": 0, "delta": 5}]}])
def test_what_cannot_be_read_is_named_nonsense(body: dict[str, Any]) -> None:
    with pytest.raises(EngineSentNonsense):
        written(a_caller(), Event(body, 0, []))


@pytest.mark.parametrize(
    ("body", "one_choice"),
    [
        ({}, True),
        ({"n": None, "prompt": "a"}, True),
        ({"n": 1, "prompt": ["a"]}, True),
        ({"prompt": [5, 6]}, True),
        ({"prompt": [[5, 6]]}, True),
        ({"n": 2}, False),
        ({"prompt": ["a", "b"]}, False),
        ({"prompt": [[5], [6]]}, False),
    ],
)
def test_how_many_choices_there_will_be_is_read_off_the_request(body: dict[str, Any], one_choice: bool) -> None:
    assert Wishes.of(body).one_choice == one_choice
