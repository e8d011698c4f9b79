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
#: Schemas that refer to themselves end here.
SCHEMA_DEPTH_MAX = 8

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


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """The plainest value that a JSON schema allows."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > SCHEMA_DEPTH_MAX:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if isinstance(schema.get("$ref"), str):
        return sample(_resolve(root, schema["$ref"]), root, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return sample(schema[choice][0], root, depth + 1)
    kind = schema.get("type", "object")
    return _sample_of(kind[0] if isinstance(kind, list) and kind else kind, schema, root, depth)


def _sample_of(kind: Any, schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: sample(value, root, depth + 1) for name, value in properties.items()}
    if kind == "array":
        count = max(1, int(schema.get("minItems", 1)))
        return [sample(schema.get("items", {"type": "string"}), root, depth + 1)] * count
    if kind == "string":
        least = int(schema.get("minLength", 0))
        return "river".ljust(least, "r")[: int(schema.get("maxLength", max(5, least)))]
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("maximum", 36))
    return kind == "boolean" or None


def _resolve(root: Any, reference: str) -> Any:
    value = root
    for step in reference.lstrip("#/").split("/"):
        value = value.get(step) if isinstance(value, Mapping) else None
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
