"""The simulated model's chat template, and the answers it has to give word for word: tool calls and JSON.

A prompt says all there is to know about the answer: tools are part of it, so that an engine which is handed
ids only (to continue a broken stream) makes the same tool call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shrk_node_agent.engine.simulated.vocabulary import (
    ASSISTANT,
    BEGIN,
    END,
    ROLES,
    SYSTEM,
    TOOL,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOLS,
    USER,
    decode,
    encode,
)

#: What JSON mode answers where no schema says otherwise.
JSON_ANSWER = {"name": "Ada", "age": 36}
#: Bounds of an answer (values, levels, items of a list, letters of a string): far more than people's schemas want.
SCHEMA_VALUES_MAX = 1000
SCHEMA_DEPTH_MAX = 50
ITEMS_MAX = 100
STRING_MAX = 1000

_ROLE_MARKS = {"user": USER, "assistant": ASSISTANT, "tool": TOOL}


def render_chat(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
    """Prompt ids of a conversation, in OpenAI's shape of messages and tools."""
    ids = [BEGIN]
    if tools:
        functions = [tool["function"] for tool in tools]
        shown = [{"name": f["name"], "parameters": f.get("parameters") or {}} for f in functions]
        ids += [TOOLS, *encode(json.dumps(shown)), END]
    for message in messages:
        ids.append(_ROLE_MARKS.get(message["role"], SYSTEM))
        ids += encode(text_of(message.get("content")))
        for call in message.get("tool_calls") or ():
            ids += _call_ids(call["function"]["name"], call["function"]["arguments"])
        ids.append(END)
    ids.append(ASSISTANT)
    return ids


def text_of(content: str | Sequence[str | Mapping[str, Any]] | None) -> str:
    """The text of a message's content, be it one string or parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)


def tool_call_ahead(ids: Sequence[int]) -> list[int] | None:
    """The rest of the tool call that these ids are about to make, END included; None where they make none.

    They make one when tools were given, unless the last message is a tool's result; and they go on with one
    only as long as what they said of it is right.
    """
    if TOOLS not in ids:
        return None
    begin = _last_of(ids, {ASSISTANT}, len(ids))
    before = _last_of(ids, ROLES, begin)
    if begin < 0 or before < 0 or ids[before] == TOOL:
        return None
    section = ids.index(TOOLS)
    try:
        tools = json.loads(decode(ids[section + 1 : ids.index(END, section)]))
        call = [*_call_ids(tools[0]["name"], json.dumps(sample(tools[0]["parameters"]))), END]
    except (ValueError, LookupError, TypeError):
        return None  # Ids that no template of ours made: not an error, just no tools.
    said = list(ids[begin + 1 :])
    return call[len(said) :] if call[: len(said)] == said and len(said) < len(call) else None


def json_answer(schema: Mapping[str, Any] | None) -> list[int]:
    """A JSON document that keeps to the schema, END included."""
    value = JSON_ANSWER if schema is None else sample(schema)
    return [*encode(json.dumps(value)), END]


def sample(schema: Any) -> Any:
    """The plainest value that a JSON schema allows."""
    return _Sampler(schema).value(schema)


class _Sampler:
    """Makes one value. Schemas come from callers, so what they can make it do is bounded."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = SCHEMA_VALUES_MAX
        self._depth = 0
        self._resolving: list[str] = []

    def value(self, schema: Any) -> Any:
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0 or self._depth >= SCHEMA_DEPTH_MAX:
            return None
        self._depth += 1
        value = self._any_of(schema)
        self._depth -= 1
        return value

    def _any_of(self, schema: Mapping[str, Any]) -> Any:
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        if isinstance(schema.get("$ref"), str):
            return self._referred(schema["$ref"])
        for choice in ("anyOf", "oneOf", "allOf"):
            if schema.get(choice):
                return self.value(schema[choice][0])
        kind = schema.get("type", "object")
        return self._of(kind[0] if isinstance(kind, list) and kind else kind, schema)

    def _of(self, kind: Any, schema: Mapping[str, Any]) -> Any:
        if kind == "object":
            properties = schema.get("properties") or {}
            return {name: self.value(value) for name, value in properties.items()}
        if kind == "array":
            count = min(max(1, int(schema.get("minItems", 1))), ITEMS_MAX)
            return [self.value(schema.get("items", {"type": "string"}))] * count
        if kind == "string":
            least = min(int(schema.get("minLength", 0)), STRING_MAX)
            return "river".ljust(least, "r")[: int(schema.get("maxLength", max(5, least)))]
        if kind in ("integer", "number"):
            return schema.get("minimum", schema.get("maximum", 36))
        return True if kind == "boolean" else None

    def _referred(self, reference: str) -> Any:
        if reference in self._resolving:
            return None  # A schema that refers to itself ends here.
        self._resolving.append(reference)
        schema = self._root
        for step in filter(None, reference.removeprefix("#").split("/")):
            schema = schema.get(step) if isinstance(schema, Mapping) else None
        value = self.value(schema)
        self._resolving.pop()
        return value


def _call_ids(name: str, arguments: str) -> list[int]:
    text = f'\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n'
    return [TOOL_CALL, *encode(text), TOOL_CALL_END]


def _last_of(ids: Sequence[int], wanted: frozenset[int] | set[int], end: int) -> int:
    """The last index below `end` of one of the wanted ids; -1 where there is none."""
    for index in range(end - 1, -1, -1):
        if ids[index] in wanted:
            return index
    return -1
