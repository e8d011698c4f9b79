"""Which requests belong to one conversation."""

from __future__ import annotations

from typing import Any

import pytest

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane.conversation import REQUEST_BYTES_MIN, affinity
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.state.affinity import NO_AFFINITY

SYSTEM = {"role": "system", "content": "You are a lighthouse keeper. " * 200}
FIRST = {"role": "user", "content": "Is the lamp lit?"}
LATER = [{"role": "assistant", "content": "It is."}, {"role": "user", "content": "And the horn?"}]
LONG = REQUEST_BYTES_MIN


def of(body: dict[str, Any], size: int = LONG, key: str = "k", endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS) -> int:
    return affinity(DIALECTS[endpoint], {"model": "m"} | body, size, key)


def test_all_turns_of_one_chat_are_one_conversation() -> None:
    assert of({"messages": [SYSTEM, FIRST]}) == of({"messages": [SYSTEM, FIRST, *LATER]}) != NO_AFFINITY


def test_another_first_turn_or_system_text_or_model_or_key_is_another_conversation() -> None:
    chat = {"messages": [SYSTEM, FIRST]}
    others = [
        of({"messages": [SYSTEM, LATER[1]]}),
        of({"messages": [FIRST]}),
        of(chat | {"model": "n"}),
        of(chat, key="another"),
    ]
    assert len({of(chat), *others}) == 5


def test_a_prompt_cache_key_names_the_conversation_whatever_is_said_in_it() -> None:
    named = {"prompt_cache_key": "night watch"}
    assert of(named | {"messages": [FIRST]}, size=100) == of(named | {"messages": LATER}) != NO_AFFINITY
    assert of(named | {"messages": [FIRST]}, key="another") != of(named | {"messages": [FIRST]})


@pytest.mark.parametrize("odd", [None, "", 7, ["x"]])
def test_a_prompt_cache_key_that_names_nothing_is_as_good_as_none(odd: object) -> None:
    chat = {"messages": [SYSTEM, FIRST]}
    assert of(chat | {"prompt_cache_key": odd}) == of(chat)


def test_what_is_short_and_not_named_is_nobodys_conversation() -> None:
    assert of({"messages": [FIRST]}, size=REQUEST_BYTES_MIN - 1) == NO_AFFINITY


def test_a_completion_is_known_by_how_its_prompt_begins() -> None:
    def completion(prompt: object) -> int:
        return of({"prompt": prompt}, endpoint=Endpoint.COMPLETIONS)

    story = "Once upon a time " * 100
    assert completion(story) == completion(story + "and so on") == completion([story, "another"])
    assert completion(story) != completion("Then " + story)
    assert completion(list(range(2_000))) == completion(list(range(3_000))) == completion([list(range(2_000))])
    assert completion("") == NO_AFFINITY


def test_a_chat_without_a_user_turn_is_known_by_all_of_it() -> None:
    assert of({"messages": [SYSTEM]}) != of({"messages": [SYSTEM, SYSTEM]})


def test_embeddings_have_no_conversations() -> None:
    assert of({"input": "text", "prompt_cache_key": "k"}, endpoint=Endpoint.EMBEDDINGS) == NO_AFFINITY


def test_a_long_system_text_does_not_hide_the_first_turn() -> None:
    rules = {"role": "system", "content": "Keep the light. " * 4_000}
    assert of({"messages": [rules, FIRST]}) != of({"messages": [rules, LATER[1]]})


def test_what_is_nested_too_deep_to_be_read_is_nobodys_conversation() -> None:
    deep: object = "x"
    for _ in range(400):
        deep = [deep]
    assert of({"messages": [{"role": "user", "content": deep}]}) == NO_AFFINITY
