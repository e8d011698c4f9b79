"""Reading an engine's answer whole, within a bound."""

from __future__ import annotations

import aiohttp


async def read_up_to(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body, or its first `bytes_max` bytes. Raises aiohttp.ClientError."""
    parts: list[bytes] = []
    # One read gives what has arrived, which may be less than half a sentence.
    while bytes_max > 0 and (part := await response.content.read(bytes_max)):
        parts.append(part)
        bytes_max -= len(part)
    return b"".join(parts)
