"""`/v1/embeddings`: a unit vector that is a pure function of the text's ids."""

from __future__ import annotations

import base64
import math
import struct
from array import array
from collections.abc import Sequence
from hashlib import shake_128

from aiohttp import web

from shrk_node_agent.engine.simulated import errors, requests
from shrk_node_agent.engine.simulated.completions import id_lists
from shrk_node_agent.engine.simulated.engine_room import EngineRoom, usage
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.requests import EmbeddingRequest

#: As shark-tiny's.
DIMENSIONS = 128


async def serve_embeddings(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Embed one text or many."""
    wanted = await requests.read(request, EmbeddingRequest)
    if wanted.model is not None and wanted.model != room.model:
        message = f"The model `{wanted.model}` does not exist."
        raise Refusal(message, status=404, kind="NotFoundError")
    if wanted.dimensions is not None:
        raise Refusal(
            f"Model '{room.model}' does not support Matryoshka embeddings; dimensions must be unset "
            f"(received dimensions={wanted.dimensions})."
        )
    if wanted.input == []:
        raise Refusal("You must pass at least one prompt")
    texts = id_lists(wanted.input)
    for ids in texts:
        if len(ids) > room.context_tokens:
            raise errors.prompt_too_long(len(ids), room.context_tokens)
    vectors = [embed(ids) for ids in texts]
    shown = [_packed(v) for v in vectors] if wanted.encoding_format == "base64" else vectors
    return json_response(
        {
            "id": room.request_id(request, None, "embd"),
            "object": "list",
            "created": room.now(),
            "model": room.model,
            "data": [{"index": i, "object": "embedding", "embedding": v} for i, v in enumerate(shown)],
            "usage": usage(sum(map(len, texts)), 0),
        }
    )


def embed(ids: Sequence[int]) -> list[float]:
    """DIMENSIONS numbers, of length one together."""
    drawn = shake_128(array("I", ids).tobytes()).digest(2 * DIMENSIONS)
    numbers = [value + 0.5 for value in struct.unpack(f"<{DIMENSIONS}h", drawn)]
    length = math.sqrt(sum(value * value for value in numbers))
    return [value / length for value in numbers]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
