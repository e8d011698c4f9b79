"""What an engine is asked before it counts as ready. Whole lives of engines are in test_process.py."""

from __future__ import annotations

import json

from aiohttp import web

from shrk_contract.terms import Endpoint
from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.readiness import EngineProbe
from support.played_engine import played_engine, streaming

ANSWERS = {
    "/v1/models": {"data": [{"id": "m", "max_model_len": 128}]},
    "/v1/embeddings": {"data": [{"embedding": [0.5] * 100}]},
    "/version": {"version": "1.2.3"},
}


async def test_answers_that_come_in_pieces_are_read_to_their_end() -> None:
    async def play(request: web.Request) -> web.StreamResponse:
        answer = json.dumps(ANSWERS[request.path]).encode()
        return await streaming(*(answer[at : at + 20] for at in range(0, len(answer), 20)))(request)

    async with played_engine(play) as engine, EngineProbe(engine.socket, "m", Task.EMBED) as probe:
        abilities = await probe.abilities()
    assert abilities.endpoints == (Endpoint.EMBEDDINGS,)
    assert (abilities.context_tokens, abilities.version) == (128, "1.2.3")
