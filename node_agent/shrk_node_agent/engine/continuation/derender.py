"""Ids into events, by the engine itself, chunk by chunk: `derender` keeps nothing, its state is carried here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from shrk_node_agent.attempts import Resume
from shrk_node_agent.engine.continuation.asking import Asking
from shrk_node_agent.engine.continuation.dialect import Reading
from shrk_node_agent.engine.events import reading
from shrk_node_agent.engine.text_digest import TextDigest

#: A parser reads all chunks anew with every call, each in a time of its own: vLLM's needs 45 ms for 2,000 tokens in one
#: chunk and 160 ms for as many chunks. Folding them asks for one call more.
CHUNKS_MAX = 16


class Derender:
    """One answer's ids so far, read in one way."""

    def __init__(self, engine: Asking, way: Reading, resume: Resume, body: dict[str, Any]) -> None:
        self._engine = engine
        self._way = way
        # Both may go along with every chunk, and may be large.
        self._request = orjson.Fragment(orjson.dumps(body))
        self._prompt = orjson.Fragment(orjson.dumps([*resume.prompt_ids]))
        self._state: dict[str, Any] | None = None
        self._chunks_max = CHUNKS_MAX

    @property
    def chunks(self) -> int:
        """How many a parser has to read anew with the next call."""
        return len((self._state or {}).get("output_chunk_lens") or ())

    async def event(
        self, ids: Sequence[int], finish_reason: str | None = None, stop_reason: Any = None
    ) -> dict[str, Any]:
        """The next ids as one event of the endpoint's own stream. Raises CannotResume and EngineSentNonsense."""
        event, self._state = await self._ask(self._state, ids, finish_reason, stop_reason)
        return event

    async def fold(self, text_digest: int) -> None:
        """Make one chunk of many, if the parser reads it as the same text, which has the given digest."""
        if self._state is None or self.chunks <= self._chunks_max:
            return
        state = self._state
        with reading("a derendered state"):
            ids = state["output_token_ids"]
        event, folded = await self._ask(None, ids)
        digest = TextDigest()
        with reading("a derendered chunk"):
            digest.add_delta(event["choices"][0]["delta"])
        if digest.value == text_digest:
            # Calls keep the ids under which they have been opened.
            self._state = folded | {"last_tool_call_ids": state.get("last_tool_call_ids") or []}
        else:
            self._chunks_max = 2 * self.chunks

    async def _ask(
        self,
        state: dict[str, Any] | None,
        ids: Sequence[int],
        finish_reason: str | None = None,
        stop_reason: Any = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        choice = {"index": 0, "token_ids": [*ids], "finish_reason": finish_reason, "stop_reason": stop_reason}
        asked: dict[str, Any] = {
            "stream": True,
            "generate_chunk": {"request_id": "resumed", "choices": [choice]},
            "stream_state": state,
        }
        if self._way.request_field:
            asked[self._way.request_field] = self._request
        # Parsers look through the whole prompt with every chunk; of mere text, the state keeps the prompt's tail.
        if state is None or state.get("output_chunk_lens"):
            asked["prompt_token_ids"] = self._prompt
        answer = await self._engine.ask(self._way.path, asked)
        with reading("a derendered chunk"):
            (derendered,) = answer["chunk"]["choices"]
            event = {"id": "", "object": self._way.object, "created": 0, "model": ""}
            return event | {"choices": [self._way.as_streamed(derendered)]}, dict(answer["stream_state"])
