"""`/v1/responses`, whole and streamed.

Nothing is stored, as by vLLM unless it is told to: no response is found later.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from shrk_node_agent.engine.simulated import chat as chats
from shrk_node_agent.engine.simulated.engine_room import Choice, EngineRoom
from shrk_node_agent.engine.simulated.errors import json_response
from shrk_node_agent.engine.simulated.response_requests import (
    FlatNamedTool,
    ResponsesRequest,
    chat_of,
    check_response,
    no_such_response,
    read_response,
)
from shrk_node_agent.engine.simulated.sequences import Sampling, Token
from shrk_node_agent.engine.simulated.streams import EventStream, marred
from shrk_node_agent.engine.simulated.tool_calls import Piece, ToolCallReader, is_json, read_whole

#: A call that had not got as far as its name; of these vLLM tells nothing in a stream.
_CALL_BEGINS = "<tool_call>"


async def serve_response(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Answer one request."""
    wanted = await read_response(request)
    room.check_model(wanted.model)
    check_response(wanted, room.context_tokens)
    chat = chat_of(wanted)
    prompt = chats.prompt_of(chat)
    sampling = chats.samplings_of(room, chat, prompt)[0]
    answer = _Answer(wanted, chats.calls_tools(chat), room, prompt, sampling)
    if not wanted.stream:
        [choice] = await room.collect(answer.id, [prompt], [[sampling]])
        whole = answer.whole(choice)
        if choice.garbled:
            return web.Response(body=orjson.dumps(whole)[:-40], headers={"Content-Type": "application/json"})
        return json_response(whole)
    stream = EventStream(request)
    events = ResponseEvents(answer, stream)
    await stream.open()
    events.begin()
    await room.answer(answer.id, [prompt], [[sampling]], events.on_token, stream.blocked)
    return await stream.close()


async def find_response(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """An earlier response, to be read or cancelled: there is none."""
    raise no_such_response(request.match_info["response_id"])


class _Answer:
    """What a response says of itself, at its beginning and at its end."""

    def __init__(
        self, wanted: ResponsesRequest, calls: bool, room: EngineRoom, prompt: Sequence[int], sampling: Sampling
    ) -> None:
        self.id = wanted.request_id or f"resp_{secrets.token_hex(8)}"
        self.calls = calls
        self._wanted = wanted
        self._model = room.model
        self._created = room.now()
        self._prompt_tokens = len(prompt)
        self._tokens_max = sampling.max_tokens

    def whole(self, choice: Choice) -> dict[str, Any]:
        """The response to a request that is not streamed."""
        output = []
        call = read_whole(choice.text)[1] if self.calls else None
        if call is not None and is_json(call.arguments):
            output = [_call(f"fc_{secrets.token_hex(8)}", _call_id(), call.name, call.arguments, "completed")]
        elif choice.text:
            output = [_message(f"msg_{secrets.token_hex(8)}", choice.text)]
        return self.ended(choice.finish_reason, output, len(choice.ids))

    def ended(self, finish_reason: str, output: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """The response when all has been said."""
        status = {"length": "incomplete", "abort": "cancelled"}.get(finish_reason, "completed")
        return self.body(status, output, _usage(self._prompt_tokens, tokens))

    def body(self, status: str, output: list[dict[str, Any]], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        """A `response` with all the fields that vLLM gives it."""
        wanted = self._wanted
        text = wanted.text
        shown_text = text and {"format": text.format and text.format.told(), "verbosity": text.verbosity}
        choice = wanted.tool_choice
        return {
            "id": self.id,
            "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": wanted.instructions,
            "metadata": wanted.metadata,
            "model": self._model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": wanted.parallel_tool_calls is not False,
            "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
            "tool_choice": choice.model_dump() if isinstance(choice, FlatNamedTool) else choice,
            "tools": [tool.model_dump(by_alias=True) for tool in wanted.tools],
            "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
            "background": bool(wanted.background),
            "max_output_tokens": self._tokens_max,
            "max_tool_calls": wanted.max_tool_calls,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": wanted.reasoning.model_dump() if wanted.reasoning else None,
            "service_tier": wanted.service_tier,
            "status": status,
            "text": shown_text,
            "top_logprobs": None,
            "truncation": wanted.truncation or "disabled",
            "usage": usage,
            "user": wanted.user,
            "presence_penalty": wanted.presence_penalty or 0.0,
            "frequency_penalty": wanted.frequency_penalty or 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt_tokens + output_tokens,
    }


def _call_id() -> str:
    return f"chatcmpl-tool-{secrets.token_hex(8)}"


def _call(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    return {
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
        "type": "function_call",
        "id": item_id,
        "async": None,
        "caller": None,
        "namespace": None,
        "status": status,
    }


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _message(item_id: str, text: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "content": [_part(text)],
        "role": "assistant",
        "status": "completed",
        "type": "message",
        "phase": None,
    }


class ResponseEvents:
    """Writes a response's events: it opens, one item is added, grows and is done, and the response completes."""

    def __init__(self, answer: _Answer, stream: EventStream) -> None:
        """Nothing is written before `begin`."""
        self._answer = answer
        self._stream = stream
        self._reader = ToolCallReader() if answer.calls else None
        self._number = 0
        self._produced = 0
        self._text: list[str] = []
        #: Of the one item, once there is one: where its events belong, and of a call also its name and id.
        self._place: dict[str, Any] = {}
        self._called: tuple[str, str] | None = None

    def begin(self) -> None:
        """Write what comes before the first token."""
        response = self._answer.body("in_progress", [], None)
        kinds = ("response.created", "response.in_progress")
        self._stream.send(b"".join(self._event(kind, {"response": response}) for kind in kinds))

    def on_token(self, index: int, token: Token) -> None:
        """Write what this token brings, and the end of the stream with the last."""
        if token.finish_reason != "abort":
            self._produced += 1
        events = b"".join(self._grown(piece) for piece in self._pieces(token))
        if token.finish_reason is not None:
            done, output = self._done()
            response = self._answer.ended(token.finish_reason, output, self._produced)
            events += done + self._event("response.completed", {"response": response})
        if events:
            self._stream.send(marred(events, token))

    def _pieces(self, token: Token) -> list[Piece]:
        if self._reader is None:
            return [Piece(content=token.text)] if token.text else []
        pieces = self._reader.feed(token.text)
        if token.finish_reason is not None:
            pieces += [piece for piece in self._reader.end() if not (piece.content or "").startswith(_CALL_BEGINS)]
        return pieces

    def _grown(self, piece: Piece) -> bytes:
        if piece.name is not None:
            return self._open_call(piece.name)
        if piece.content is None:
            self._text.append(piece.arguments or "")
            return self._event("response.function_call_arguments.delta", {"delta": piece.arguments, **self._place})
        opened = b"" if self._place else self._open_message()
        self._text.append(piece.content)
        delta = {"content_index": 0, "delta": piece.content, "logprobs": [], **self._place}
        return opened + self._event("response.output_text.delta", delta)

    def _open_message(self) -> bytes:
        item_id = f"msg_{secrets.token_hex(8)}"
        self._place = {"item_id": item_id, "output_index": 0}
        item = _message(item_id, "") | {"content": [], "status": "in_progress"}
        part = _part("") | {"logprobs": []}
        return self._event("response.output_item.added", {"item": item, "output_index": 0}) + self._event(
            "response.content_part.added", {"content_index": 0, "part": part, **self._place}
        )

    def _open_call(self, name: str) -> bytes:
        item_id = f"fc_{secrets.token_hex(8)}"
        self._place = {"item_id": item_id, "output_index": 0}
        self._called = (name, _call_id())
        item = _call(item_id, self._called[1], name, "", "in_progress")
        return self._event("response.output_item.added", {"item": item, "output_index": 0})

    def _done(self) -> tuple[bytes, list[dict[str, Any]]]:
        """The last events of the item, and the response's output; neither where nothing was said."""
        if not self._place:
            return b"", []
        text, item_id = "".join(self._text), self._place["item_id"]
        if self._called is not None:
            name, call_id = self._called
            item = _call(item_id, call_id, name, text, "completed")
            told = {"arguments": text, "name": name, **self._place}
            events = self._event("response.function_call_arguments.done", told)
        else:
            item = _message(item_id, text)
            said = {"content_index": 0, "logprobs": [], "text": text, **self._place}
            events = self._event("response.output_text.done", said)
            told = {"content_index": 0, "part": _part(text), **self._place}
            events += self._event("response.content_part.done", told)
        return events + self._event("response.output_item.done", {"item": item, "output_index": 0}), [item]

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        told = orjson.dumps({**fields, "sequence_number": self._number, "type": kind})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), told)
