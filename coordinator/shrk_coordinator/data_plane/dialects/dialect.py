"""What a dialect is, and the checks that several share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from shrk_contract.terms import DENIED_FIELDS, Endpoint
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.errors import field_not_allowed, invalid_value, missing_field

Body = dict[str, Any]

#: Answers to one request; vLLM itself would take 16,384.
CHOICES_MAX = 8
#: Seeds as engines and the wire take them: whole numbers of 64 bits, with a sign.
SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a caller sees as identity, equal over all attempts."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask. `ending` renders the events after the last piece, up to but not including [DONE]."""

    endpoint: Endpoint
    id_prefix: str
    streams: bool
    check: Callable[[Body], None]
    #: What all turns of one conversation begin with, as JSON; None where there are no conversations.
    opening: Callable[[Body], object] | None
    ending: Callable[[Envelope, link_pb2.Finish, bool], bytes]


def check_shared(body: Body, streams: bool) -> None:
    """Fields that mean the same in every dialect. Raises ApiError."""
    model = body.get("model")
    if model is None:
        raise missing_field("model", "the name of a model; GET /v1/models lists them")
    if not isinstance(model, str) or not 1 <= len(model) <= 300:
        raise invalid_value("model", "a string of 1 to 300 characters")
    for name in DENIED_FIELDS.keys() & body.keys():
        raise field_not_allowed(name, DENIED_FIELDS[name])
    stream = body.get("stream")
    if not isinstance(stream, bool | None):
        raise invalid_value("stream", "true or false")
    if stream and not streams:
        raise invalid_value("stream", "false: this endpoint answers in one piece")
    options = body.get("stream_options")
    if not isinstance(options, dict | None):
        raise invalid_value("stream_options", "an object")
    if options and not stream:
        raise invalid_value("stream_options", "absent unless 'stream' is true")


def inputs_of(value: object) -> int:
    """How many prompts a `prompt` or `input` holds: one string, one list of token ids, or a list of either."""
    if isinstance(value, list) and not (value and isinstance(value[0], int)):
        return len(value)
    return 1


def check_inputs(name: str, value: object, sequences_max: int, choices: int = 1) -> None:
    """The number of sequences that one request becomes in an engine. Raises ApiError."""
    count = inputs_of(value)
    if count * choices > sequences_max:
        times = f" for 'n' of {choices}" if choices > 1 else ""
        raise invalid_value(name, f"a list of at most {sequences_max // choices}{times}; {count} were sent")


def check_choices(body: Body) -> None:
    """The number of answers asked for, and the seed that they count up from. Raises ApiError."""
    n = body.get("n")
    if n is not None and not _is_whole(n, 1, CHOICES_MAX):
        raise invalid_value("n", f"a whole number from 1 to {CHOICES_MAX}")
    last = SEED_MAX - ((n or 1) - 1)
    seed = body.get("seed")
    if seed is not None and not _is_whole(seed, SEED_MIN, last):
        times = f" for 'n' of {n}" if last != SEED_MAX else ""
        raise invalid_value("seed", f"a whole number from {SEED_MIN} to {last}{times}")


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def ending_of(object_name: str, empty_choice: Body) -> Callable[[Envelope, link_pb2.Finish, bool], bytes]:
    """How a streamed dialect ends: finish reasons, one event a choice, then usage where the caller asked for it.

    `empty_choice` holds what a choice of this dialect has when no text is left to send.
    """

    def ending(envelope: Envelope, finish: link_pb2.Finish, include_usage: bool) -> bytes:
        shared = {"id": envelope.id, "object": object_name, "created": envelope.created, "model": envelope.model}
        events = [sse.event(shared | {"choices": [_last_choice(end, empty_choice)]}) for end in finish.choices]
        if include_usage:
            events.append(sse.event(shared | {"choices": [], "usage": _usage(finish)}))
        return b"".join(events)

    return ending


def _last_choice(end: link_pb2.ChoiceEnd, empty_choice: Body) -> Body:
    choice = {"index": end.index} | empty_choice | {"logprobs": None, "finish_reason": end.finish_reason}
    if end.stop_reason_json:
        choice["stop_reason"] = orjson.loads(end.stop_reason_json)
    return choice


def _usage(finish: link_pb2.Finish) -> Body:
    """The engine's own usage object, with its details; else what was counted."""
    if finish.usage_json:
        usage: Body = orjson.loads(finish.usage_json)
        return usage
    prompt, completion = finish.prompt_tokens, finish.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
