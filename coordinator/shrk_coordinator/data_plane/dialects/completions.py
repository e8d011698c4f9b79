"""Plain completions."""

from __future__ import annotations

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane.dialects.dialect import (
    Body,
    Dialect,
    check_choices,
    check_inputs,
    check_shared,
    ending_of,
)
from shrk_coordinator.errors import invalid_value, missing_field

#: Generations that one request may start in one engine: more would keep everybody else waiting.
SEQUENCES_MAX = 128
#: Characters, or token ids, of a prompt by which it is taken for the same conversation: more than most templates share.
OPENING_LENGTH = 1_024


def check(body: Body) -> None:
    """What the coordinator must know before it asks a node; the engine checks the rest. Raises ApiError."""
    check_shared(body, streams=True)
    prompt = body.get("prompt")
    if prompt is None:
        raise missing_field("prompt", "a string, a list of strings, or token ids")
    if not isinstance(prompt, str | list) or prompt == []:
        raise invalid_value("prompt", "a string, or a list that is not empty")
    check_choices(body)
    check_inputs("prompt", prompt, SEQUENCES_MAX, body.get("n") or 1)


def opening(body: Body) -> object:
    """What every longer prompt of the same conversation begins with as well."""
    prompt = body["prompt"]
    first = prompt[0] if isinstance(prompt, list) and isinstance(prompt[0], str | list) else prompt
    return first[:OPENING_LENGTH]


DIALECT = Dialect(
    endpoint=Endpoint.COMPLETIONS,
    id_prefix="cmpl-",
    streams=True,
    check=check,
    opening=opening,
    ending=ending_of("text_completion", {"text": ""}),
)
