"""Refusals in vLLM's shape and words, so that whoever understands vLLM's understands ours."""

from __future__ import annotations

import re
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

#: Of a request that is wrong in many places, this many are told; more would repeat a large request.
REPORTED_MAX = 10
INPUT_CHARS_MAX = 200

#: Segments of a location that name pydantic's own machinery, not a field of the caller's.
_MACHINERY = re.compile(r"[\[\]{}()]|^(str|int|float|bool|list|dict|tuple|none|union|nullable|function-\w+)$", re.I)


class Refusal(Exception):
    """A request that cannot be answered; nothing of it was computed."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def response(self) -> web.Response:
        """The answer that says so."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return json_response({"error": error}, self.status)


def json_response(body: Any, status: int = 200) -> web.Response:
    """JSON, with the content type that vLLM gives it."""
    return web.Response(body=orjson.dumps(body), status=status, headers={"Content-Type": "application/json"})


def invalid_value(message: str, param: str, value: object) -> Refusal:
    """A field with a value out of its range."""
    return Refusal(f"{message} (parameter={param}, value={value})", param=param)


def unknown_model(name: str, served: str) -> Refusal:
    """A model that this engine does not serve."""
    return Refusal(
        f"The model `{name}` does not exist. Valid aliases: {served}.",
        status=404,
        kind="NotFoundError",
        param="model",
    )


def prompt_too_long(tokens: int, context_tokens: int) -> Refusal:
    """A prompt that fills the context by itself. As a tokenizer stops one token past it, so does the count."""
    counted = min(tokens, context_tokens + 1)
    return invalid_value(
        f"This model's maximum context length is {context_tokens} tokens. However, your prompt contains "
        f"at least {counted} input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt.",
        "input_tokens",
        counted,
    )


def not_json(kind: str, location: str, message: str, shown: str, **context: str) -> Refusal:
    """A body that is not a JSON object."""
    details: dict[str, object] = {"type": kind, "loc": location, "msg": message, "input": shown}
    if context:
        details["ctx"] = context
    return Refusal(f"1 validation error:\n  {details}", kind="Bad Request", param=location)


def invalid_fields(error: ValidationError) -> Refusal:
    """Fields that are missing or of a wrong type."""
    errors = error.errors(include_url=False)
    lines = [f"  {_told(details)}" for details in errors[:REPORTED_MAX]]
    label = "error" if len(errors) == 1 else "errors"
    if len(errors) > REPORTED_MAX:
        lines.append(f"  ...and {len(errors) - REPORTED_MAX} more {label}")
    message = "\n".join([f"{len(errors)} validation {label}:", *lines])
    return Refusal(message, kind="Bad Request", param=_location(errors[0]["loc"]))


def _told(details: Any) -> dict[str, object]:
    told = {"type": details["type"], "loc": _location(details["loc"]), "msg": details["msg"]}
    told["input"] = _shown(details["input"])
    if "ctx" in details:
        told["ctx"] = dict(details["ctx"])
    return told


def _location(loc: tuple[int | str, ...]) -> str:
    return ".".join(["body", *(str(part) for part in loc if not _MACHINERY.search(str(part)))])


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= INPUT_CHARS_MAX else text[:INPUT_CHARS_MAX] + "...[truncated]"
