"""Streams of named events, as `/v1/messages` writes them; whole answers are read as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import orjson

from support.shapes import Reply


def named_events_of(stream: bytes) -> list[Any]:
    """The JSON of a whole stream's events; AssertionError where it is not as it should be."""
    *events, rest = stream.split(b"\n\n")
    assert rest == b""
    return [_read(event) for event in events]


def _read(event: bytes) -> Any:
    name, data = event.split(b"\n")
    document = orjson.loads(data.removeprefix(b"data: "))
    assert name == b"event: " + document["type"].encode()
    return document


async def ask_for_events(socket: Path, path: str, body: Any) -> Reply:
    """One request to the engine on `socket`; a `bytes` body is sent as it is."""
    payload = body if isinstance(body, bytes) else orjson.dumps(body)
    async with (
        aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path=str(socket))) as session,
        session.post(path, data=payload, headers={"Content-Type": "application/json"}) as response,
    ):
        raw = await response.read()
        content_type = response.headers.get("Content-Type", "")
        streamed = content_type.startswith("text/event-stream")
        return Reply(response.status, content_type, named_events_of(raw) if streamed else orjson.loads(raw))
