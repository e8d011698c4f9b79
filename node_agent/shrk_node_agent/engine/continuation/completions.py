"""Completions, continued by ids."""

from __future__ import annotations

from typing import Any

from shrk_node_agent.engine.continuation.dialect import Dialect, Reading

#: Turns ids into mere text.
PATH = "/v1/completions/derender"


def _single(rendered: Any) -> dict[str, Any]:
    """The request of the only prompt."""
    (only,) = rendered
    return dict(only)


def _text(choice: dict[str, Any]) -> dict[str, Any]:
    names = ("index", "text", "finish_reason", "stop_reason")
    return {name: choice[name] for name in names} | {"logprobs": None}


TEXT = Reading(PATH, "completion_request", "text_completion", _text)
DIALECT = Dialect(render="/v1/completions/render", single=_single, readings=lambda body, rendered: (TEXT,))
