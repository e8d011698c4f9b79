"""How the answers of each dialect end, as official SDKs read them."""

from __future__ import annotations

from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from shrk_contract.terms import Endpoint
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from support.network import events_of

ENVELOPE = Envelope("the-id", 1234, "the-model")
FINISH = link_pb2.Finish(
    choices=[
        link_pb2.ChoiceEnd(index=0, finish_reason="stop", stop_reason_json=b"128"),
        link_pb2.ChoiceEnd(index=1, finish_reason="length"),
    ],
    prompt_tokens=3,
    completion_tokens=4,
)


def test_a_chat_ends_with_a_reason_for_each_choice() -> None:
    events = events_of(DIALECTS[Endpoint.CHAT_COMPLETIONS].ending(ENVELOPE, FINISH, False))
    chunks = [ChatCompletionChunk.model_validate(e, strict=True) for e in events]
    assert [(c.choices[0].index, c.choices[0].finish_reason) for c in chunks] == [(0, "stop"), (1, "length")]
    assert events[0]["choices"][0]["stop_reason"] == 128
    assert "stop_reason" not in events[1]["choices"][0]
    assert {(c.id, c.created, c.model) for c in chunks} == {("the-id", 1234, "the-model")}


def test_usage_comes_last_on_request_with_the_engines_own_details() -> None:
    ending = DIALECTS[Endpoint.CHAT_COMPLETIONS].ending
    counted = ChatCompletionChunk.model_validate(events_of(ending(ENVELOPE, FINISH, True))[-1])
    assert counted.choices == []
    assert counted.usage is not None
    assert counted.usage.total_tokens == 7
    finish = link_pb2.Finish(usage_json=b'{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":1}}')
    [event] = events_of(ending(ENVELOPE, finish, True))
    assert event["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


def test_a_completion_ends_in_its_own_shape() -> None:
    for event in events_of(DIALECTS[Endpoint.COMPLETIONS].ending(ENVELOPE, FINISH, True)):
        Completion.model_validate(event)
