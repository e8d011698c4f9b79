"""Chats, continued by ids."""

from __future__ import annotations

from typing import Any

from shrk_node_agent.engine.continuation.completions import PATH as TEXT_PATH
from shrk_node_agent.engine.continuation.dialect import Dialect, Reading

_OBJECT = "chat.completion.chunk"


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that a delta of the engine's own leaves out."""
    delta = {name: value for name, value in choice["delta"].items() if value is not None}
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [_without_blanks(call) for call in calls]
    return _streamed(choice, delta)


def _without_blanks(call: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in call.items() if value is not None}
    if "function" in told:
        told["function"] = {name: value for name, value in told["function"].items() if value is not None}
    return told


def _text(choice: dict[str, Any]) -> dict[str, Any]:
    return _streamed(choice, {"content": choice["text"]} if choice["text"] else {})


def _streamed(choice: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    streamed = {"index": choice["index"], "delta": delta, "logprobs": None, "finish_reason": choice["finish_reason"]}
    return streamed | ({"stop_reason": choice["stop_reason"]} if choice["finish_reason"] else {})


#: By the engine's parsers, which know reasoning and tool calls. They show special tokens that they do not know.
PARSED = Reading("/v1/chat/completions/derender", "chat_request", _OBJECT, _delta)
#: As mere text: without parsers it takes no time to speak of, and it hides special tokens, as the engine itself does.
TEXT = Reading(TEXT_PATH, "", _OBJECT, _text)


def _readings(body: dict[str, Any], rendered: dict[str, Any]) -> tuple[Reading, ...]:
    params = rendered["sampling_params"]
    defaults = params.get("skip_special_tokens", True) and params.get("spaces_between_special_tokens", True)
    return (PARSED,) if body.get("tools") or not defaults else (TEXT, PARSED)


DIALECT = Dialect(render="/v1/chat/completions/render", single=dict, readings=_readings)
