"""An engine's errors: its own words, and whose fault they are."""

from __future__ import annotations

from typing import Any

import orjson

from shrk_contract.terms import Fault
from shrk_node_agent.attempts import Failed
from shrk_node_agent.engine.crash import ENGINE_CRASHED

#: Statuses by which an engine blames the request. The others below 500 are about us: a wrong path, a queue.
_CALLERS_FAULT = frozenset({400, 413, 415, 422})
#: How vLLM's front end begins what it says once its core is gone, to all that were waiting and all that still come.
_CORE_IS_GONE = "EngineCore encountered an issue"


def from_response(status: int, body: bytes) -> Failed:
    """A failure from an answer other than 200."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        text = body[:500].decode("utf-8", "replace").strip()
        error = {"message": text or f"the engine answered {status} without a word"}
    return from_error_object(error, status)


def from_error_object(error: Any, status: int) -> Failed:
    """A failure from the `error` object of an answer or of a stream's event."""
    if not isinstance(error, dict):
        error = {"message": str(error)}
    code = error.get("code")
    status = status or (code if isinstance(code, int) else 500)
    message = error.get("message") or error.get("detail") or "the engine gave no reason"
    return Failed(
        fault=Fault.CALLER if status in _CALLERS_FAULT else Fault.ENGINE,
        message=str(message),
        http_status=status,
        code=_code(error, str(message)),
        type=_type(error),
        param=str(error.get("param") or ""),
    )


def _code(error: dict[str, Any], message: str) -> str:
    code = error.get("code")
    if isinstance(code, str):
        return code
    if message.startswith(_CORE_IS_GONE):
        return ENGINE_CRASHED
    # vLLM repeats the status as its code; callers' clients look for this one by name.
    return "context_length_exceeded" if "maximum context length" in message else ""


def _type(error: dict[str, Any]) -> str:
    """vLLM names a Python class (BadRequestError); official SDKs know the API's own names."""
    kind = str(error.get("type") or "")
    return kind if "_" in kind else ""
