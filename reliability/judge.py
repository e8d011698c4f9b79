"""What a caller was told, taken apart, and held against the same answer without a fault. Pure.

Of two streams of one answer the cuts between events may differ, and what names the request: its id, when it was
created, the ids of tool calls. All else must be equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_EVENT = "data: "
_DONE = "[DONE]"


class NotWhole(Exception):
    """What came is no whole answer; `str()` says what is wrong with it."""


@dataclass(slots=True)
class Call:
    """One tool call."""

    name: str
    arguments: str = ""


@dataclass(slots=True)
class Transcript:
    """An answer as its caller puts it together."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    #: What came in which order, without repetitions: role, text, call 0, arguments 0, finish, usage.
    order: list[str] = field(default_factory=list)


def differences(seen: Transcript, unbroken: Transcript) -> str:
    """What differs, in words; empty where nothing does."""
    found = []
    for name in ("text", "calls", "finish", "usage", "order"):
        ours, theirs = getattr(seen, name), getattr(unbroken, name)
        if ours != theirs:
            found.append(f"{name}: {_apart(_written(ours), _written(theirs))}")
    return "; ".join(found)


def _apart(ours: str, theirs: str) -> str:
    """Both texts around the first character in which they differ."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = next((at for at, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    begin, end = max(0, same - 40), same + 60
    return f"at {same}: {ours[begin:end]!r} instead of {theirs[begin:end]!r}"


def read_whole(body: bytes) -> Transcript:
    """An answer that was not streamed. Raises NotWhole."""
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise NotWhole(f"no JSON: {error}") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise NotWhole(f"an error: {_shown(answer)}")
    [choice] = answer["choices"]
    message = choice["message"]
    calls = [Call(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
    return Transcript(message.get("content") or "", calls, choice["finish_reason"], answer["usage"], [message["role"]])


def read_stream(body: bytes) -> Transcript:
    """A stream of a chat's events with usage, up to its [DONE]. Raises NotWhole."""
    events = body.decode().split("\n\n")
    if events.pop():
        raise NotWhole("the stream ends in the middle of an event")
    payloads = [event.removeprefix(_EVENT) for event in events if event.startswith(_EVENT)]
    if not payloads or payloads[-1] != _DONE or _DONE in payloads[:-1]:
        raise NotWhole(f"the stream does not end with one [DONE] but with {_shown(payloads[-1:])}")
    reader = _Reader()
    for payload in payloads[:-1]:
        reader.take(json.loads(payload))
    return reader.whole()


class _Reader:
    """Puts one stream together, and is strict about what comes after what."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        self._names: set[tuple[str, int, str]] = set()
        self._call_ids: dict[int, str] = {}

    def take(self, event: dict[str, Any]) -> None:
        """The next event. Raises NotWhole."""
        if "error" in event:
            raise NotWhole(f"an error event: {_shown(event['error'])}")
        self._names.add((event["id"], event["created"], event["model"]))
        if self._transcript.usage:
            raise NotWhole("events after the usage")
        for choice in event["choices"]:
            self._choice(choice)
        if usage := event.get("usage"):
            self._transcript.usage = usage
            self._then("usage")

    def whole(self) -> Transcript:
        """The answer. Raises NotWhole."""
        transcript = self._transcript
        if len(self._names) != 1:
            raise NotWhole(f"id, created and model change: {_shown(sorted(self._names))}")
        if transcript.order[:1] != ["role"] or not transcript.finish or not transcript.usage:
            raise NotWhole(f"the stream has this order: {transcript.order}")
        if len(set(self._call_ids.values())) != len(transcript.calls):
            raise NotWhole(f"{len(transcript.calls)} tool calls have the ids {sorted(self._call_ids.values())}")
        return transcript

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"]
        if self._transcript.finish:
            raise NotWhole("a choice goes on after its finish")
        if "role" in delta:
            if "role" in self._transcript.order:
                raise NotWhole("the role is told twice")
            self._then("role")
        if text := delta.get("content"):
            self._transcript.text += text
            self._then("text")
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if finish := choice.get("finish_reason"):
            self._transcript.finish = finish
            self._then("finish")

    def _call(self, call: dict[str, Any]) -> None:
        index, function = call["index"], call.get("function") or {}
        calls = self._transcript.calls
        if name := function.get("name"):
            if index != len(calls):
                raise NotWhole(f"tool call {index} is opened as number {len(calls)}")
            calls.append(Call(name))
            self._call_ids[index] = call["id"]
            self._then(f"call {index}")
        if arguments := function.get("arguments"):
            if index >= len(calls):
                raise NotWhole(f"tool call {index} goes on before it is opened")
            calls[index].arguments += arguments
            self._then(f"arguments {index}")

    def _then(self, what: str) -> None:
        if self._transcript.order[-1:] != [what]:
            self._transcript.order.append(what)


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _shown(value: object) -> str:
    text = _written(value)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-90:]}"
