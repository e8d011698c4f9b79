"""Compares answers by shape: keys, types, and the values of the few fields that are part of a protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

#: Fields whose very values clients rely on.
PROTOCOL_FIELDS = frozenset({"object", "role", "finish_reason", "index", "type", "output_mode", "code", "param"})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as far as it is compared."""

    status: int
    content_type: str
    #: A JSON document; for a stream the list of its events; for plain text a string; else None.
    document: Any


async def ask(socket: Path, method: str, path: str, body: Any) -> Reply:
    """One request to the engine on `socket`; a `bytes` body is sent as it is."""
    payload = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
    async with (
        aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path=str(socket))) as session,
        session.request(method, path, data=payload, headers={"Content-Type": "application/json"}) as response,
    ):
        raw = await response.read()
        content_type = response.headers.get("Content-Type", "")
        document = None
        if content_type.startswith("text/event-stream"):
            # Choices take turns as it happens; told one after the other they can be compared.
            named = raw.startswith(b"event: ")
            document = list(_named_events(raw)) if named else sorted(_events(raw), key=_choice_of)
        elif raw and content_type.startswith("application/json"):
            document = orjson.loads(raw)
        elif content_type.startswith("text/plain"):
            document = raw.decode()
        return Reply(response.status, content_type, document)


def _events(raw: bytes) -> Iterator[Any]:
    *events, done, rest = raw.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    for event in events:
        assert event.startswith(b"data: ")
        yield orjson.loads(event.removeprefix(b"data: "))


def _named_events(raw: bytes) -> Iterator[Any]:
    """Events that carry a name, which their JSON repeats as its type; no [DONE] ends them."""
    *events, rest = raw.split(b"\n\n")
    assert rest == b""
    for event in events:
        name, data = event.split(b"\n")
        document = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + document["type"].encode()
        yield document


def _choice_of(event: Any) -> float:
    """The index of the choice that an event is about; events about none of them come last."""
    return event["choices"][0]["index"] if event["choices"] else float("inf")


def shape(value: Any, field: str = "") -> Any:
    """Types in place of values; equal neighbours in a list are told once, as answers differ in length."""
    if isinstance(value, Mapping):
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        shapes: list[Any] = []
        for item in value:
            if not shapes or shapes[-1] != shape(item):
                shapes.append(shape(item))
        return shapes
    if field in PROTOCOL_FIELDS and value is not None:
        return value
    return "null" if value is None else type(value).__name__


def differences(real: Any, simulated: Any, where: str = "") -> Iterator[str]:
    """One line for each place where two shapes differ: "choices[0].delta: real …, simulated …"."""
    if isinstance(real, dict) and isinstance(simulated, dict):
        for name in real.keys() | simulated.keys():
            place = f"{where}.{name}" if where else name
            yield from differences(real.get(name, "absent"), simulated.get(name, "absent"), place)
    elif isinstance(real, list) and isinstance(simulated, list) and len(real) == len(simulated):
        for index, (one, other) in enumerate(zip(real, simulated, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif real != simulated:
        yield f"{where}: real {real}, simulated {simulated}"
