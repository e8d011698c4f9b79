"""Several answers to one streamed request: each is a request of its own, and all go out as one stream.

So each is placed, continued and verified alone, and one that loses its node does not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from shrk_contract.terms import BODY_BYTES_MAX
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane import sse
from shrk_coordinator.data_plane.chunk_pipe import ChunkPipe
from shrk_coordinator.data_plane.dialects import continuable
from shrk_coordinator.data_plane.errors import error_event
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Shared
from shrk_coordinator.data_plane.streamed import StreamedRelay
from shrk_coordinator.errors import ApiError, body_too_large, invalid_value

#: Bodies of all answers to one request together: each prompt takes along all that was sent beside it. A list of prompts
#: and what belongs to it are far less, and eight answers to the largest body a quarter.
FANNED_BYTES_MAX = 32 * 1024 * 1024

Body = dict[str, Any]


def calls_of(call: Call, body: Body) -> list[Call]:
    """One call for each answer that was asked for: `n` of each prompt, with seeds that count up as vLLM's own do.

    Raises ApiError where that would be too much to hold.
    """
    n = body.get("n") or 1
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    prompts: list[Any] = prompt if isinstance(prompt, list) and several else [prompt]
    if len(prompts) * n == 1:
        return [call]
    _check_bytes(body, prompts, n)
    seed = call.seed if body.get("seed") is None else body["seed"]
    first = int.from_bytes(call.request_id, "big")
    calls = []
    for index in range(len(prompts) * n):
        alone = {name: value for name, value in body.items() if name != "n"} | {"seed": seed + index % n}
        if prompt is not None:
            alone["prompt"] = prompts[index // n]
        request_id = ((first + index) % (1 << 128)).to_bytes(16, "big")
        by_ids = continuable.by_ids(alone)
        raw = orjson.dumps(alone)
        if len(raw) > BODY_BYTES_MAX:
            # Written anew a body may be longer than it came, and no node takes it.
            raise body_too_large(BODY_BYTES_MAX)
        sibling_of = call.request_id if index else b""
        calls.append(
            replace(call, request_id=request_id, body=raw, by_ids=by_ids, choice_index=index, sibling_of=sibling_of)
        )
    return calls


def _check_bytes(body: Body, prompts: list[Any], n: int) -> None:
    """What all the bodies come to, before any of them is made. Raises ApiError."""
    beside = len(orjson.dumps({name: value for name, value in body.items() if name != "prompt"}))
    if (beside * len(prompts) + len(orjson.dumps(prompts))) * n > FANNED_BYTES_MAX:
        most = f"what is sent beside it goes along with each, and all of it may come to {FANNED_BYTES_MAX:,} bytes"
        raise invalid_value("prompt", f"a shorter list: {most}")


class Strand(StreamedRelay):
    """One of several answers; the usage and the end of the stream are told for all of them together."""

    finish_frame: link_pb2.Finish | None = None

    def _complete(self, finish: link_pb2.Finish) -> None:
        self.finish_frame = finish
        call = self.call
        self._pending.append(call.dialect.ending(call.envelope, finish, False))


class FannedAnswer:
    """The answers of one request, on their way into one response."""

    def __init__(self, calls: Sequence[Call], per_prompt: int, shared: Shared) -> None:
        """`calls`: as `calls_of` gave them, `per_prompt` for each prompt."""
        self.strands = [Strand(call, shared) for call in calls]
        self._per_prompt = per_prompt
        self._shared = shared

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer as pieces come. Raises ApiError before the first byte, and CallerGone."""
        opening = [asyncio.ensure_future(strand.opened()) for strand in self.strands]
        try:
            await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in opening:
                waiting.cancel()
        if error := self._refused():
            raise error
        pipe = await ChunkPipe.open(request, headers() | sse.HEADERS, self._shared.patience.caller_stall)
        pumps = [asyncio.ensure_future(strand.pump(pipe)) for strand in self.strands]
        try:
            await asyncio.gather(*pumps)
            ending = self._ending()
        except ApiError as failed:
            ending = error_event(failed, self.strands[0].call.request_id)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        pipe.send([ending])
        return await pipe.finish()

    def _refused(self) -> ApiError | None:
        """The error that ended an answer before anything of any was said."""
        return next((strand.error for strand in self.strands if strand.error is not None), None)

    def _ending(self) -> bytes:
        call = self.strands[0].call
        if not call.include_usage:
            return sse.DONE
        finishes = [strand.finish_frame for strand in self.strands if strand.finish_frame is not None]
        total = link_pb2.Finish(
            # As vLLM does: a prompt counts once, however many answers it gets.
            prompt_tokens=sum(finish.prompt_tokens for finish in finishes[:: self._per_prompt]),
            completion_tokens=sum(finish.completion_tokens for finish in finishes),
        )
        return call.dialect.ending(call.envelope, total, True) + sse.DONE
