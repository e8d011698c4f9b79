"""What a request must pass before any node is touched: its key, its size, its JSON, its fields."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import hdrs, web

from shrk_contract.terms import BODY_BYTES_MAX
from shrk_coordinator.errors import (
    admin_key_needed,
    body_too_large,
    body_too_slow,
    invalid_api_key,
    invalid_json,
    missing_api_key,
    not_bearer,
    unreadable_body,
)
from shrk_coordinator.records import ApiKey, Scope

#: A caller on a bad line sends 1 MiB in this time; a slower one holds a connection for nothing.
BODY_SECONDS_MAX = 30.0
#: Header values longer than any key of ours are not looked at.
CREDENTIAL_LENGTH_MAX = 500

Authenticate = Callable[[str], Awaitable[ApiKey | None]]


async def authenticated(request: web.Request, authenticate: Authenticate, scope: Scope = Scope.CALLER) -> ApiKey:
    """The key behind a request. Raises ApiError."""
    presented = _credentials(request)
    if not presented:
        raise missing_api_key()
    if len(presented) > 1 or any(len(text) > CREDENTIAL_LENGTH_MAX for text in presented):
        raise invalid_api_key()
    key = await authenticate(presented.pop())
    if key is None:
        raise invalid_api_key()
    if scope is Scope.ADMIN and key.scope is not Scope.ADMIN:
        raise admin_key_needed()
    return key


def _credentials(request: web.Request) -> set[str]:
    """Every credential sent; two that differ are as bad as a wrong one. Raises ApiError."""
    headers = request.headers
    presented = set()
    authorization = headers.get(hdrs.AUTHORIZATION)
    if authorization is not None:
        kind, _, text = authorization.partition(" ")
        if kind.lower() != "bearer":
            raise not_bearer()
        presented.add(text.strip())
    for name in ("x-api-key", "X-User-Key"):
        if name in headers:
            presented.add(headers[name].strip())
    return presented - {""}


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises ApiError; never holds more than the limit and one read."""
    try:
        return await _read_body(request)
    except web.RequestPayloadError as error:
        raise unreadable_body(str(error)) from None


async def _read_body(request: web.Request) -> bytes:
    declared = request.content_length
    if declared is not None and declared > BODY_BYTES_MAX:
        raise body_too_large(BODY_BYTES_MAX)
    if request.content.is_eof():
        # It came whole with its headers, as most do: nothing to wait for, and no deadline to set.
        body = request.content.read_nowait()
        if len(body) > BODY_BYTES_MAX:
            raise body_too_large(BODY_BYTES_MAX)
        return body
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while part := await request.content.readany():
                parts.append(part)
                size += len(part)
                # Counted after decompression, so that a compressed bomb is stopped too.
                if size > BODY_BYTES_MAX:
                    raise body_too_large(BODY_BYTES_MAX)
    except TimeoutError:
        raise body_too_slow(BODY_SECONDS_MAX) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises ApiError."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid_json(str(error)) from None
    if not isinstance(parsed, dict):
        raise invalid_json("it must be an object, in braces")
    return parsed


async def expect_continue(request: web.Request) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue` before the caller sends a body that would be refused anyway."""
    declared = request.content_length
    if declared is not None and declared > BODY_BYTES_MAX:
        # The handler refuses it by its declared length, without reading.
        return None
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None
