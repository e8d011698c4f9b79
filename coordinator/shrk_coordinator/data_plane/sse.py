"""Server-sent events as the official SDKs read them."""

from __future__ import annotations

from typing import Any

import orjson

#: Of every stream.
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    # nginx would hold the stream back until its buffer is full.
    "X-Accel-Buffering": "no",
}
#: Ends every stream that went well; absent where it did not.
DONE = b"data: [DONE]\n\n"
#: A comment: keeps proxies and clients from giving up on a slow answer.
KEEP_ALIVE = b": keep-alive\n\n"


def event(payload: dict[str, Any]) -> bytes:
    """One event with a JSON payload."""
    return b"data: %b\n\n" % orjson.dumps(payload)
