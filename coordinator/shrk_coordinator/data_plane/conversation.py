"""Which requests belong to one conversation, so that they are asked of the node that has read its beginning already.

A caller says so with `prompt_cache_key`; else the system text and the first user turn tell, which are the same in every
turn. No two keys share a conversation: what one caller's prompts are must not show in another's waiting times.
"""

from __future__ import annotations

import orjson

from shrk_coordinator.data_plane.dialects import Dialect
from shrk_coordinator.data_plane.dialects.dialect import Body
from shrk_coordinator.state.affinity import NO_AFFINITY, Affinity, digest

#: A shorter request is read again in a few milliseconds: it is better asked of whoever is idle.
REQUEST_BYTES_MIN = 2_048


def affinity(dialect: Dialect, body: Body, size: int, key_id: str) -> Affinity:
    """What this request shares with the other turns of its conversation; `size`: of the body, in bytes."""
    if dialect.opening is None:
        return NO_AFFINITY
    named = body.get("prompt_cache_key")
    if isinstance(named, str) and named:
        shared = b"named", named.encode()
    elif size >= REQUEST_BYTES_MIN and (opening := dialect.opening(body)):
        try:
            shared = b"opening", orjson.dumps(opening)
        except orjson.JSONEncodeError:
            return NO_AFFINITY  # It is nested too deep: whether that can be answered is for the engine to say.
    else:
        return NO_AFFINITY
    return digest(key_id.encode(), body["model"].encode(), *shared)
