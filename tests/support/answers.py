"""What a caller makes of a streamed chat: everything that must be equal, however the answer came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support.network import events_of


@dataclass
class Assembled:
    """One streamed chat, put together as a client does; ids, times and chunking left out."""

    text: str = ""
    #: Name and arguments of each tool call, by index.
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    finish_reasons: list[str] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    roles: int = 0
    done: bool = False
    errors: list[Any] = field(default_factory=list)


def assembled(body: bytes) -> Assembled:
    """Put the events of one answer together."""
    answer = Assembled()
    for event in events_of(body):
        if event == "[DONE]":
            answer.done = True
            continue
        if "error" in event:
            answer.errors.append(event["error"])
        answer.usage = event.get("usage") or answer.usage
        for choice in event.get("choices", ()):
            _add(answer, choice)
    return answer


def _add(answer: Assembled, choice: dict[str, Any]) -> None:
    delta = choice["delta"]
    answer.text += delta.get("content") or ""
    answer.roles += bool(delta.get("role"))
    for call in delta.get("tool_calls") or ():
        name, arguments = answer.calls.get(call["index"], ("", ""))
        function = call.get("function") or {}
        answer.calls[call["index"]] = (
            name + (function.get("name") or ""),
            arguments + (function.get("arguments") or ""),
        )
    if choice.get("finish_reason"):
        answer.finish_reasons.append(choice["finish_reason"])
