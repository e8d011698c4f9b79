"""Which requests go on from token ids, and which ask for structured output: the tables."""

from __future__ import annotations

from typing import Any

import pytest

from shrk_coordinator.data_plane.dialects.continuable import by_ids, structured

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}

#: Nothing in these depends on what came before the seam.
FREE = (
    {},
    {"max_tokens": 5, "max_completion_tokens": 5, "min_tokens": 1},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3},
    {"logit_bias": {"5": 1}, "ignore_eos": True, "stop_token_ids": [5]},
    # Counted over prompt and answer, which are all there.
    {"repetition_penalty": 1.2},
    {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tools": [TOOL], "tool_choice": "none"},
    {"stream_options": {"include_usage": True}, "user": "u", "metadata": {}, "store": True},
    {"n": 1, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "stop": []},
    {"logprobs": False, "top_logprobs": 0, "echo": False, "suffix": ""},
    {"response_format": {"type": "text"}},
    {"response_format": None, "stop": None, "n": None, "logprobs": None, "something_new": None},
)
#: What depends on text, counts or a grammar from before the seam, and what nobody has looked at yet.
REPLAYED = (
    {"stop": "END"},
    {"stop": ["END"]},
    {"frequency_penalty": 0.1},
    {"presence_penalty": -0.1},
    {"n": 2},
    {"best_of": 2},
    {"logprobs": True},
    # Of a completion: the log-probability of every token.
    {"logprobs": 0},
    {"logprobs": 5},
    {"top_logprobs": 2},
    {"echo": True},
    {"suffix": "x"},
    {"use_beam_search": True},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {}}},
    {"response_format": "text"},
    {"structured_outputs": {"regex": "a"}},
    {"guided_json": {}},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [STRICT]},
    {"bad_words": ["x"]},
    {"something_new": 1},
    {"something_new": []},
)


@pytest.mark.parametrize("fields", FREE)
def test_what_does_not_look_back_goes_on_from_ids(fields: dict[str, Any]) -> None:
    assert by_ids(CHAT | fields)


@pytest.mark.parametrize("fields", REPLAYED)
def test_what_looks_back_or_is_not_known_is_replayed(fields: dict[str, Any]) -> None:
    assert not by_ids(CHAT | fields)


def test_a_completion_goes_on_from_ids_as_a_chat_does() -> None:
    assert by_ids({"model": "m", "prompt": "once", "max_tokens": 5, "add_special_tokens": True})


@pytest.mark.parametrize("tools", ["none", [None], [{"function": None}], [{"function": "f"}], {}, [[]]])
def test_tools_of_another_shape_are_the_engines_to_refuse(tools: Any) -> None:
    assert by_ids(CHAT | {"tools": tools})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"response_format": None}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, True),
        ({"response_format": {"type": "structural_tag"}}, True),
        ({"structured_outputs": {"choice": ["a", "b"]}}, True),
        ({"structured_outputs": None}, False),
        ({"guided_json": {}}, True),
        ({"guided_regex": "a+"}, True),
        ({"guided_choice": ["a"]}, True),
        ({"guided_grammar": "root ::= a"}, True),
        ({"tools": [TOOL]}, False),
        ({"tools": [TOOL, STRICT]}, True),
        ({"tools": [TOOL], "tool_choice": "auto"}, False),
        ({"tools": [TOOL], "tool_choice": "required"}, True),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, True),
    ],
)
def test_structured_output_is_what_must_follow_a_grammar(fields: dict[str, Any], expected: bool) -> None:
    assert structured(CHAT | fields) is expected


@pytest.mark.parametrize("fields", [fields for fields in REPLAYED if structured(CHAT | fields)])
def test_nothing_that_follows_a_grammar_goes_on_from_ids(fields: dict[str, Any]) -> None:
    assert not by_ids(CHAT | fields)
