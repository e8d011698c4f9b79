"""An answer cut off after any of its pieces and continued, compared with the answer that nobody cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from shrk_contract.terms import Endpoint, ResumeMethod
from shrk_node_agent.attempts import ChoiceEnd, Envelope, Finished, Order, Piece, Resume
from shrk_node_agent.engine.exchange import EngineClient
from support.played_engine import DONE, Heard, Play, send_parts

ENVELOPE = Envelope("chatcmpl-ours", 1234, "asked-for", "call_x_")
JSON = {"Content-Type": "application/json"}


@dataclass
class Said:
    """What a caller has got of a streamed answer."""

    roles: int = 0
    text: dict[str, str] = field(default_factory=dict)
    #: (name, id, arguments) of each tool call.
    calls: dict[int, list[str]] = field(default_factory=dict)
    logprobs: int = 0
    shown_ids: list[int] = field(default_factory=list)
    envelopes: set[tuple[str, int, str]] = field(default_factory=set)
    tokens: int = 0
    ids: list[int] = field(default_factory=list)
    end: ChoiceEnd | None = None


def said(pieces: Sequence[Piece]) -> Said:
    """All of it, put together; AssertionError where a piece holds half an event."""
    whole = Said()
    for piece in pieces:
        whole.tokens += piece.tokens
        whole.ids += piece.token_ids
        assert whole.end is None or not piece.end, "an answer ends once"
        whole.end = whole.end or piece.end
        *events, rest = piece.part.split(b"\n\n")
        assert rest == b"", "a piece holds whole events"
        for event in events:
            _add(whole, json.loads(event.removeprefix(b"data: ")))
    return whole


def _add(whole: Said, event: dict[str, Any]) -> None:
    whole.envelopes.add((event["id"], event["created"], event["model"]))
    (choice,) = event["choices"]
    whole.shown_ids += choice.get("token_ids") or ()
    whole.logprobs += len((choice.get("logprobs") or {}).get("content") or ())
    delta = choice.get("delta", {"text": choice.get("text")})
    whole.roles += "role" in delta
    for channel in ("reasoning", "content", "text"):
        whole.text[channel] = whole.text.get(channel, "") + (delta.get(channel) or "")
    for call in delta.get("tool_calls") or ():
        function = call["function"]
        if function.get("name"):
            assert call["index"] not in whole.calls, "a call is opened once"
            whole.calls[call["index"]] = [function["name"], call["id"], ""]
        whole.calls[call["index"]][2] += function.get("arguments") or ""


def order_of(endpoint: Endpoint, body: dict[str, Any]) -> Order:
    """The order of a streamed answer, its ids told."""
    streamed = json.dumps({**body, "stream": True}).encode()
    return Order(endpoint, "asked-for", True, ENVELOPE, streamed, seed=7, tell_ids=True)


async def answered(client: EngineClient, order: Order) -> Heard:
    """What one attempt came to."""
    heard = Heard()
    await client.answer(order, heard)
    return heard


async def unbroken(client: EngineClient, order: Order) -> Heard:
    """An attempt that nobody cut."""
    heard = await answered(client, order)
    assert heard.finished is not None, heard.failed
    return heard


def resumed(order: Order, first: Heard, pieces: int, method: ResumeMethod) -> Order:
    """The order that goes on after some pieces of a first attempt."""
    got = first.pieces[:pieces]
    delivered = said(got)
    by_ids = method is ResumeMethod.BY_IDS
    resume = Resume(
        method,
        delivered.tokens,
        got[-1].text_digest,
        prompt_ids=first.prompts[0] if by_ids else (),
        delivered_ids=delivered.ids if by_ids else (),
    )
    return replace(order, resume=resume)


def check_seamless(first: Heard, pieces: int, rest: Heard) -> None:
    """Some pieces of a first attempt and all of a second one are what the first alone would have been."""
    assert rest.finished is not None, (pieces, rest.failed)
    assert said([*first.pieces[:pieces], *rest.pieces]) == said(first.pieces), pieces
    assert first.finished is not None
    assert without_cache(rest.finished) == without_cache(first.finished), pieces
    assert all(piece.tokens for piece in rest.pieces[:1]) or len(rest.pieces) == 1, pieces
    if rest.pieces:
        assert rest.pieces[-1].text_digest == first.pieces[-1].text_digest, pieces


def without_cache(finished: Finished) -> Finished:
    """How much of a prompt an engine had in its cache differs from one attempt to the next."""
    usage = {name: value for name, value in finished.usage.items() if name != "prompt_tokens_details"}
    return replace(finished, usage=usage)


def event_by_event(engine: aiohttp.ClientSession, at_once: int = 1) -> Play:
    """Plays what an engine answers, each event of its streams to be read by itself: one token a piece.

    Or several tokens, where `at_once` of its events are made one, as an engine does that guesses ahead.
    """

    async def play(request: web.Request) -> web.StreamResponse:
        async with engine.post(f"http://engine{request.path}", data=await request.read(), headers=JSON) as answer:
            body = await answer.read()
        if answer.content_type != "text/event-stream":
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)
        *told, done = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
        assert done == b"[DONE]"
        events = [b"data: %b\n\n" % json.dumps(event).encode() for event in _merged(map(json.loads, told), at_once)]
        response = await send_parts(request, *events, DONE)
        await response.write_eof()
        return response

    return play


def _merged(events: Iterable[dict[str, Any]], at_once: int) -> list[dict[str, Any]]:
    """Every so many events with tokens as one of them."""
    merged: list[dict[str, Any]] = []
    room = 0
    for event in events:
        if not any(choice.get("token_ids") for choice in event["choices"]):
            merged.append(event)
            room = 0
        elif room:
            _merge(merged[-1], event)
            room -= 1
        else:
            merged.append(event)
            room = at_once - 1
    return merged


def _merge(event: dict[str, Any], later: dict[str, Any]) -> None:
    """Add a later event of the same choice."""
    (choice,), (more,) = event["choices"], later["choices"]
    for words, new in ((choice, more), (choice.get("delta", {}), more.get("delta", {}))):
        for name in ("text", "content", "tool_calls", "token_ids"):
            if new.get(name):
                words[name] = (words.get(name) or type(new[name])()) + new[name]
    choice |= {name: more[name] for name in ("finish_reason", "stop_reason") if name in more}
    event["usage"] = later.get("usage")
