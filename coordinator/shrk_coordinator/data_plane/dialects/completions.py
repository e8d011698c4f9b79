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


DIALECT = Dialect(
    endpoint=Endpoint.COMPLETIONS,
    id_prefix="cmpl-",
    streams=True,
    check=check,
    ending=ending_of("text_completion", {"text": ""}),
)
