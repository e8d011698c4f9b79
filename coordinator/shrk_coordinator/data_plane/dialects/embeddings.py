"""Embeddings."""

from __future__ import annotations

from shrk_contract.terms import Endpoint
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects.dialect import Body, Dialect, Envelope, check_inputs, check_shared
from shrk_coordinator.errors import invalid_value, missing_field

#: OpenAI's own limit for one request.
INPUTS_MAX = 2_048


def check(body: Body) -> None:
    """What the coordinator must know before it asks a node; the engine checks the rest. Raises ApiError."""
    check_shared(body, streams=False)
    text = body.get("input")
    if text is None:
        raise missing_field("input", "a string, a list of strings, or token ids")
    if not isinstance(text, str | list) or text == []:
        raise invalid_value("input", "a string, or a list that is not empty")
    check_inputs("input", text, INPUTS_MAX)


def ending(envelope: Envelope, finish: link_pb2.Finish, include_usage: bool) -> bytes:
    """Never asked for: embeddings do not stream."""
    raise AssertionError("embeddings do not stream")


DIALECT = Dialect(Endpoint.EMBEDDINGS, "embd-", streams=False, check=check, opening=None, ending=ending)
