"""The simulated model: its vocabulary loses nothing, and what it says depends on the ids alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrk_node_agent.engine.simulated.language import ANSWER_TOKENS_MAX, ANSWER_TOKENS_MIN, answer
from shrk_node_agent.engine.simulated.prompts import json_answer, render_chat, sample
from shrk_node_agent.engine.simulated.vocabulary import BYTES, END, SIZE, decode, encode

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}

prompts = st.text(max_size=40).map(lambda text: render_chat([{"role": "user", "content": text}]))


def asked(content: str) -> list[int]:
    return render_chat([{"role": "user", "content": content}])


@given(st.text())
def test_any_text_survives_its_token_ids(text: str) -> None:
    ids = encode(text)
    assert decode(ids) == text
    assert all(BYTES <= token < SIZE or token in encode(".,") for token in ids)


def test_text_that_spells_a_marker_is_only_text() -> None:
    assert decode(encode("<|end|><tool_call>")) == "<|end|><tool_call>"
    assert END not in encode("<|end|>")


def test_english_takes_about_three_characters_a_token() -> None:
    text = "Please explain how a modern distributed scheduler chooses between several candidate machines."
    assert 2.5 < len(text) / len(encode(text)) < 5


@settings(max_examples=50)
@given(prompts, st.integers(-(2**63), 2**63 - 1), st.data())
def test_an_answer_goes_on_from_any_of_its_prefixes(prompt: list[int], seed: int, data: st.DataObject) -> None:
    whole = answer(prompt, seed)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert answer(prompt + whole[:cut], seed) == whole[cut:]


@settings(max_examples=50)
@given(prompts, st.data())
def test_an_answer_read_back_from_its_text_goes_on_as_well(prompt: list[int], data: st.DataObject) -> None:
    whole = answer(prompt)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert encode(decode(whole[:cut])) == whole[:cut]


@settings(max_examples=50)
@given(prompts, st.integers(1, ANSWER_TOKENS_MIN - 3))
def test_a_short_a_wrong_and_a_repeated_prefix_all_give_other_text(prompt: list[int], cut: int) -> None:
    whole = answer(prompt)
    rest = decode(whole[cut:])
    short = decode(answer(prompt + whole[: cut - 1])[1:]) if cut > 1 else ""
    assert short in ("", rest)  # One token short, the missing token comes first, and then the same again.
    assert decode(answer(prompt + whole[1:cut])) != rest
    assert decode(answer(prompt + whole[:cut] + whole[cut - 1 : cut])) != rest
    assert decode(answer([*prompt, *whole[: cut - 1], encode("shark")[0]])) != rest


def test_other_prompts_and_other_seeds_get_other_answers() -> None:
    assert answer(asked("hello")) != answer(asked("hello!"))
    assert answer(asked("hello"), seed=1) != answer(asked("hello"), seed=2)


def test_what_it_says_never_changes_between_versions() -> None:
    # Recorded tests and benches elsewhere rely on it: nodes of two versions continue each other's streams.
    said = decode(answer(asked("Count to 3"), max_tokens=8))
    assert said == "And circle sea near by dream garden shape"


@settings(max_examples=50)
@given(prompts)
def test_an_answer_ends_at_a_full_stop_after_16_to_64_tokens(prompt: list[int]) -> None:
    *said, end = answer(prompt)
    assert end == END
    assert ANSWER_TOKENS_MIN <= len(said) <= ANSWER_TOKENS_MAX
    assert decode(said).endswith(".")


def test_it_talks_on_where_its_end_is_ignored_or_not_due_yet() -> None:
    assert len(answer(asked("hi"), max_tokens=500, ignore_eos=True)) == 500
    assert END not in answer(asked("hi"), max_tokens=500, ignore_eos=True)
    assert len(answer(asked("hi"), max_tokens=500, min_tokens=100)) > 100


def test_given_tools_it_calls_the_first_with_arguments_that_keep_to_the_schema() -> None:
    *call, end = answer(render_chat([{"role": "user", "content": "weather?"}], [WEATHER]), max_tokens=200)
    assert end == END
    document = json.loads(decode(call).removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert document == {"name": "get_weather", "arguments": {"city": "river", "days": 36}}


def test_a_tool_call_goes_on_from_any_of_its_prefixes() -> None:
    prompt = render_chat([{"role": "user", "content": "weather?"}], [WEATHER])
    whole = answer(prompt, max_tokens=200)
    for cut in range(len(whole)):
        assert answer(prompt + whole[:cut], max_tokens=200) == whole[cut:]


def test_a_tool_call_with_a_wrong_prefix_turns_into_words() -> None:
    prompt = render_chat([{"role": "user", "content": "weather?"}], [WEATHER])
    whole = answer(prompt, max_tokens=200)
    assert decode(answer(prompt + whole[1:3], max_tokens=200)) != decode(whole[3:])


def test_after_a_tool_result_it_answers_in_words() -> None:
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Eindhoven"}'}}
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "18 degrees"},
    ]
    assert "<tool_call>" not in decode(answer(render_chat(messages, [WEATHER])))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": 36}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"enum": ["x", "y"]}, "x"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": "string", "minLength": 8}, "riverrrr"),
        ({"type": "integer", "minimum": 50}, 50),
        ({"$defs": {"n": {"const": 7}}, "properties": {"n": {"$ref": "#/$defs/n"}}}, {"n": 7}),
    ],
)
def test_json_answers_keep_to_the_schema(schema: dict[str, object], value: object) -> None:
    assert sample(schema) == value
    assert json.loads(decode(json_answer(schema))) == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}}}
    assert json.loads(decode(json_answer(schema))) == {"child": {"child": None}}


def test_a_schema_that_would_explode_is_cut_short() -> None:
    levels = {
        f"l{i}": {"properties": {"a": {"$ref": f"#/$defs/l{i + 1}"}, "b": {"$ref": f"#/$defs/l{i + 1}"}}}
        for i in range(40)
    }
    schema = {"$defs": levels, "$ref": "#/$defs/l0"}
    assert len(json_answer(schema)) < 100_000
    assert len(json_answer({"type": "array", "minItems": 10**12})) < 1000
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"properties": {"a": deep}}
    assert len(json_answer(deep)) < 1000
