"""`/v1/messages`, whole and streamed, and `/v1/messages/count_tokens`."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

import orjson
from aiohttp import web

from shrk_node_agent.engine.simulated import chat as chats
from shrk_node_agent.engine.simulated import errors, requests
from shrk_node_agent.engine.simulated.engine_room import Choice, EngineRoom
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.message_requests import (
    CountRequest,
    MessagesRequest,
    chat_of,
    sampled_chat_of,
)
from shrk_node_agent.engine.simulated.requests import ChatRequest
from shrk_node_agent.engine.simulated.sequences import Token
from shrk_node_agent.engine.simulated.streams import EventStream, marred
from shrk_node_agent.engine.simulated.tool_calls import Piece, ToolCallReader, is_json, whole_call


async def serve_messages(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Answer one conversation."""
    asked = await requests.read(request, MessagesRequest)
    return await _told_in_this_dialect(_answer(room, request, asked))


async def count_tokens(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """How many tokens a conversation comes to."""
    asked = await requests.read(request, CountRequest)
    return await _told_in_this_dialect(_count(room, asked))


async def _told_in_this_dialect(answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    """Refusals of a body's fields keep the form that all routes share; those that come later have their own."""
    try:
        return await answer
    except Refusal as refusal:
        error = {"type": refusal.kind, "message": refusal.message}
        return json_response({"type": "error", "error": error}, refusal.status)


async def _answer(room: EngineRoom, request: web.Request, asked: MessagesRequest) -> web.StreamResponse:
    room.check_model(asked.model)
    chat = sampled_chat_of(asked, room.model, room.context_tokens)
    prompt = chats.prompt_of(chat)
    samplings = chats.samplings_of(room, chat, prompt)
    request_id = room.request_id(request, None, "chatcmpl")
    if not chat.stream:
        [choice] = await room.collect(request_id, [prompt], [samplings])
        return _whole_answer(chat, request_id, room.model, len(prompt), choice)
    stream = EventStream(request)
    events = MessageEvents(chat, request_id, room.model, len(prompt), stream)
    await stream.open()
    await room.answer(request_id, [prompt], [samplings], events.on_token, stream.blocked)
    return await stream.close()


async def _count(room: EngineRoom, asked: CountRequest) -> web.StreamResponse:
    room.check_model(asked.model)
    count = len(chats.prompt_of(chat_of(asked, room.model)))
    if count > room.context_tokens:
        raise errors.prompt_too_long(count, room.context_tokens)
    return json_response({"input_tokens": count, "context_management": {"original_input_tokens": count}})


def _whole_answer(chat: ChatRequest, request_id: str, model: str, prompt_tokens: int, choice: Choice) -> web.Response:
    call = whole_call(choice.text) if chats.calls_tools(chat) else None
    reason, sequence = stop_reason(choice.finish_reason, choice.stop_reason, called=False, complete=False)
    content: dict[str, Any] = {"type": "text", "text": choice.text}
    if call is not None:
        # Whole answers with a whole call end with it, even where the length cut what came after.
        reason, sequence = "tool_use", None
        content = _tool_use(call.name, json.loads(call.arguments))
    body = {
        "id": request_id,
        "type": "message",
        "role": "assistant",
        "content": [content],
        "model": model,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": _usage(prompt_tokens, len(choice.ids)),
    }
    told = {name: value for name, value in body.items() if value is not None}
    if choice.garbled:
        return web.Response(body=orjson.dumps(told)[:-40], headers={"Content-Type": "application/json"})
    return json_response(told)


def stop_reason(finish: str, stop: str | None, *, called: bool, complete: bool) -> tuple[str | None, str | None]:
    """(stop_reason, stop_sequence) of an answer that `called` a tool, with all of its arguments if `complete`.

    A stop sequence wins over a call that it cut short, as that must not be run.
    """
    if finish == "length":
        return "max_tokens", None
    if finish != "stop":
        return None, None
    if complete:
        return "tool_use", None
    if stop is not None:
        return "stop_sequence", stop
    return "tool_use" if called else "end_turn", None


class MessageEvents:
    """Writes the named events of a streamed answer: one block, of text or of a tool's call, between two frames."""

    def __init__(self, chat: ChatRequest, request_id: str, model: str, prompt_tokens: int, stream: EventStream) -> None:
        self._request_id = request_id
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._stream = stream
        self._reader = ToolCallReader() if chats.calls_tools(chat) else None
        self._begun = False
        self._produced = 0
        self._in_block = False
        #: The arguments so far of the call that is made, if one is.
        self._arguments: str | None = None

    def on_token(self, index: int, token: Token) -> None:
        """Write what this token brings, and the end of the stream with the last."""
        opened = b"" if self._begun else self._start()
        self._begun = True
        if token.finish_reason != "abort":
            self._produced += 1
        # A call that never got its name is not told at all; so the reader's end is not asked for.
        pieces = self._reader.feed(token.text) if self._reader else [Piece(content=token.text)]
        events = b"".join(self._piece(piece) for piece in pieces)
        if token.finish_reason is not None:
            events += self._end(token.finish_reason, token.stop_reason)
        if opened or events:
            self._stream.send(opened + marred(events, token))

    def _start(self) -> bytes:
        message: dict[str, Any] = {
            "id": self._request_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._prompt_tokens, 0),
        }
        return _event("message_start", message=message)

    def _piece(self, piece: Piece) -> bytes:
        if piece.name is not None:
            self._arguments = ""
            return self._open(_tool_use(piece.name, {}))
        if piece.arguments is not None:
            self._arguments = (self._arguments or "") + piece.arguments
            return _delta({"type": "input_json_delta", "partial_json": piece.arguments})
        if not piece.content:
            return b""
        opened = b"" if self._in_block else self._open({"type": "text", "text": ""})
        return opened + _delta({"type": "text_delta", "text": piece.content})

    def _open(self, block: dict[str, Any]) -> bytes:
        self._in_block = True
        return _event("content_block_start", content_block=block, index=0)

    def _end(self, finish: str, stop: str | None) -> bytes:
        called = self._arguments is not None
        complete = is_json(self._arguments or "")
        reason, sequence = stop_reason(finish, stop, called=called, complete=complete)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        closed = _event("content_block_stop", index=0) if self._in_block else b""
        usage = _usage(self._prompt_tokens, self._produced)
        return closed + _event("message_delta", delta=delta, usage=usage) + _event("message_stop")


def _tool_use(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": chats.call_id(), "name": name, "input": arguments}


def _usage(prompt_tokens: int, answer_tokens: int) -> dict[str, int]:
    return {"input_tokens": prompt_tokens, "output_tokens": answer_tokens}


def _delta(delta: dict[str, str]) -> bytes:
    return _event("content_block_delta", delta=delta, index=0)


def _event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))
