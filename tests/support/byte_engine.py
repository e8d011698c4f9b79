"""An engine that has learnt one answer by heart and speaks in bytes: a token is a byte, so characters come in halves.

Plays chats, and what continuing them by ids needs: render, generate, and derender with its state carried along.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.played_engine import DONE, event, send_parts

PROMPT = (7, 8, 9)
END = 256


@dataclass
class ByteEngine:
    """What it says; an instance is a Play."""

    text: str = "Zoë says: 你好, 🦈!"
    #: How many tokens go together in one event.
    chunk: int = 1
    #: Sampling as `render` tells it, beyond the defaults.
    sampling: dict[str, Any] = field(default_factory=dict)
    #: The end is no token, and comes by itself.
    end_alone: bool = False
    #: All events of a stream are written at once.
    in_one_write: bool = False
    #: Its parser reads this many tokens or more in one chunk as another text.
    misreads: int = 1_000_000
    #: Paths that answer (status, body) instead.
    refuses: dict[str, tuple[int, Any]] = field(default_factory=dict)
    #: (path, body) of what it was asked.
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: Set: `generate` stops after this many of its tokens and stays there, until its caller leaves.
    stops_after: int | None = None
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> list[int]:
        """The whole answer."""
        return [*self.text.encode()] + [END] * (not self.end_alone)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was asked there."""
        return [body for asked, body in self.asked if asked == path]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = json.loads(await request.read())
        self.asked.append((request.path, body))
        if request.path in self.refuses:
            status, answer = self.refuses[request.path]
            return web.json_response(answer, status=status)
        match request.path:
            case "/v1/chat/completions":
                return await self._stream(request, self._chat_events())
            case "/v1/chat/completions/render":
                sampling = {"max_tokens": 1000, "skip_special_tokens": True, "seed": body.get("seed"), **self.sampling}
                return web.json_response({"request_id": "r", "token_ids": [1], "sampling_params": sampling})
            case "/inference/v1/generate":
                return await self._stream(request, self._generated(body))
            case "/v1/completions/derender":
                return web.json_response(self._derendered(body))
            case "/v1/chat/completions/derender":
                return web.json_response(self._parsed(body))
        return web.json_response({"error": {"message": "not found"}}, status=404)

    async def _stream(self, request: web.Request, events: list[bytes]) -> web.StreamResponse:
        if self.stops_after is None:
            parts = [b"".join([*events, DONE])] if self.in_one_write else [*events, DONE]
            response = await send_parts(request, *parts)
            await response.write_eof()
            return response
        try:
            await send_parts(request, *events[: self.stops_after])
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError("nobody wakes it")

    def _chat_events(self) -> list[bytes]:
        role = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}], prompt_token_ids=[*PROMPT])
        state: dict[str, Any] = {}
        events, counted = [role], 0
        for ids in self._chunks(0):
            text, state = _decoded(state, ids)
            counted += len(ids)
            choice = {"index": 0, "delta": {"content": text} if text else {}, "token_ids": ids, "finish_reason": None}
            if self._ends(ids):
                choice |= {"finish_reason": "stop", "stop_reason": None}
            events.append(event(choices=[choice], usage=_usage(len(PROMPT), counted)))
        return [*events, event(choices=[], usage=_usage(len(PROMPT), counted))]

    def _generated(self, body: dict[str, Any]) -> list[bytes]:
        given = body["token_ids"]
        prompt, said = given[: len(PROMPT)], given[len(PROMPT) :]
        assert (tuple(prompt), said) == (PROMPT, self.ids[: len(said)]), "it only knows its own answer"
        events, counted = [], 0
        for ids in self._chunks(len(said)):
            counted += len(ids)
            choice = {"index": 0, "token_ids": ids, "finish_reason": "stop" if self._ends(ids) else None}
            events.append(event(choices=[{**choice, "stop_reason": None}], usage=_usage(len(given), counted)))
        return [*events, event(choices=[], usage=_usage(len(given), counted, cached=len(given)))]

    def _chunks(self, said: int) -> list[list[int]]:
        left = self.ids[said:]
        return [left[at : at + self.chunk] for at in range(0, len(left), self.chunk)] + [[]] * self.end_alone

    def _ends(self, ids: list[int]) -> bool:
        return not ids or END in ids

    def _derendered(self, body: dict[str, Any]) -> dict[str, Any]:
        (choice,) = body["generate_chunk"]["choices"]
        text, state = _decoded(body["stream_state"] or {}, choice["token_ids"])
        told = {"index": 0, "text": text, "logprobs": None, "token_ids": None, "prompt_token_ids": None}
        told |= {name: choice[name] for name in ("finish_reason", "stop_reason")}
        return {"chunk": {"id": "r", "object": "text_completion", "choices": [told]}, "stream_state": state}

    def _parsed(self, body: dict[str, Any]) -> dict[str, Any]:
        """As a parser that begins anew with every chunk, all earlier ones in its state."""
        assert body["prompt_token_ids"] == [*PROMPT], "a parser needs all of it"
        (choice,) = body["generate_chunk"]["choices"]
        state, new = body["stream_state"] or {}, choice["token_ids"]
        ids, lens = state.get("output_token_ids", []), state.get("output_chunk_lens", [])
        before, after = (_decoded({}, some)[0] for some in (ids, ids + new))
        text = "?" if len(new) >= self.misreads else after[len(before) :]
        delta = {"role": None if ids else "assistant", "content": text or None, "reasoning": None}
        told = {"index": 0, "delta": delta, "logprobs": None, "token_ids": None}
        told |= {name: choice[name] for name in ("finish_reason", "stop_reason")}
        state = {"output_token_ids": ids + new, "output_chunk_lens": lens + [len(new)] * bool(new)}
        chunk = {"id": "r", "object": "chat.completion.chunk", "choices": [told]}
        return {"chunk": chunk, "stream_state": state | {"role_sent": True}}


def _decoded(state: dict[str, Any], ids: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The whole characters so far, and the state with what is left of the next."""
    held = bytes(state.get("held", ())) + bytes(i for i in ids if i != END)
    for whole in range(len(held), -1, -1):
        try:
            return held[:whole].decode(), {"held": [*held[whole:]]}
        except UnicodeDecodeError:
            continue
    raise AssertionError("no bytes at all are a text")


def _usage(prompt_tokens: int, completion_tokens: int, cached: int | None = None) -> dict[str, Any]:
    total = prompt_tokens + completion_tokens
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
    return usage if cached is None else usage | {"prompt_tokens_details": {"cached_tokens": cached}}
