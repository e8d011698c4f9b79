"""`/v1/chat/completions`, whole and streamed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from shrk_node_agent.engine.simulated import prompts, requests
from shrk_node_agent.engine.simulated.engine_room import (
    FINGERPRINT,
    Choice,
    EngineRoom,
    streamed_usage,
    usage,
)
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.requests import ChatRequest, NamedTool
from shrk_node_agent.engine.simulated.sequences import Sampling, Token
from shrk_node_agent.engine.simulated.streams import DONE, EventStream, marred
from shrk_node_agent.engine.simulated.tool_calls import Piece, ToolCallReader, whole_call


async def serve_chat(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Answer one chat."""
    chat = await requests.read(request, ChatRequest)
    room.check_model(chat.model)
    prompt = prompt_of(chat)
    samplings = samplings_of(room, chat, prompt)
    request_id = room.request_id(request, chat.request_id, "chatcmpl")
    if not chat.stream:
        choices = await room.collect(request_id, [prompt], [samplings])
        return whole_answer(chat, request_id, room.now(), room.model, prompt, choices)
    stream = EventStream(request)
    chunks = ChatChunks(chat, request_id, room.now(), room.model, prompt, stream)
    await stream.open()
    await room.answer(request_id, [prompt], [samplings], chunks.on_token, stream.blocked)
    return await stream.close()


def prompt_of(chat: ChatRequest) -> list[int]:
    """The prompt's ids; Refusal where there can be none."""
    requests.check_chat(chat)
    tools = chat.tools or []
    if chat.tool_choice == "none":
        tools = []
    elif isinstance(chat.tool_choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == chat.tool_choice.function.name]
        if not tools:
            raise Refusal(
                "The tool specified in `tool_choice` does not match any of the specified `tools` "
                "(parameter=tool_choice)",
                param="tool_choice",
            )
    messages = [message.model_dump() for message in chat.messages]
    return prompts.render_chat(messages, [tool.model_dump() for tool in tools])


def samplings_of(room: EngineRoom, chat: ChatRequest, prompt: Sequence[int]) -> list[Sampling]:
    """How each choice is sampled; Refusal where it cannot be."""
    limit = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    return requests.samplings(chat, len(prompt), room.context_tokens, limit)


def calls_tools(chat: ChatRequest) -> bool:
    """Whether the answer may be a tool call."""
    return bool(chat.tools) and chat.tool_choice != "none"


def finish_with_call(chat: ChatRequest) -> str:
    """How an answer ends that is a tool call; where the caller named the tool, vLLM says "stop"."""
    return "stop" if isinstance(chat.tool_choice, NamedTool) else "tool_calls"


def whole_answer(
    chat: ChatRequest, request_id: str, created: int, model: str, prompt: Sequence[int], choices: Sequence[Choice]
) -> web.Response:
    """The response to a chat that is not streamed."""
    body = completion_body(chat, request_id, created, model, prompt, choices)
    if any(choice.garbled for choice in choices):
        half = orjson.dumps(body)[:-40]
        return web.Response(body=half, headers={"Content-Type": "application/json"})
    return json_response(body)


def completion_body(
    chat: ChatRequest, request_id: str, created: int, model: str, prompt: Sequence[int], choices: Sequence[Choice]
) -> dict[str, Any]:
    """A `chat.completion` with all the fields that vLLM gives it."""
    ids = bool(chat.return_token_ids)
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_whole_choice(chat, index, choice) for index, choice in enumerate(choices)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(len(prompt), sum(len(choice.ids) for choice in choices)),
        "prompt_logprobs": None,
        "prompt_token_ids": list(prompt) if ids else None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _whole_choice(chat: ChatRequest, index: int, choice: Choice) -> dict[str, Any]:
    message = message_of(chat, choice.text)
    finish = choice.finish_reason
    if "tool_calls" in message:
        # Where the model was free to call, vLLM says so even where the length cut what came after the call.
        free = chat.tool_choice in (None, "auto")
        finish = "tool_calls" if free else finish_with_call(chat) if finish == "stop" else finish
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": choice.stop_reason,
        "token_ids": choice.ids if chat.return_token_ids else None,
        "routed_experts": None,
    }


def message_of(chat: ChatRequest, text: str) -> dict[str, Any]:
    """The message that a whole answer's text makes: content, or a tool's call."""
    call = whole_call(text) if calls_tools(chat) else None
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if call is None else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if call is not None:
        if chat.tool_choice not in (None, "auto"):
            message["content"] = ""
        function = {"name": call.name, "arguments": call.arguments}
        message["tool_calls"] = [{"id": call_id(), "type": "function", "function": function}]
    message["reasoning"] = None
    return message


def call_id() -> str:
    """An id for a tool call, as vLLM makes it."""
    return f"chatcmpl-tool-{secrets.token_hex(8)}"


class ChatChunks:
    """Writes a chat's chunks. What is equal in all of them is put together once."""

    def __init__(
        self, chat: ChatRequest, request_id: str, created: int, model: str, prompt: list[int], stream: EventStream
    ) -> None:
        n = chat.n or 1
        self._chat = chat
        self._prompt = prompt
        self._stream = stream
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            orjson.dumps(request_id),
            created,
            orjson.dumps(model),
        )
        self._with_ids = bool(chat.return_token_ids)
        self._with_usage = chat.wants_running_usage
        self._begun = False
        self._left = n
        self._produced = [0] * n
        self._readers = [ToolCallReader() for _ in range(n)] if calls_tools(chat) else None
        self._called = [False] * n

    def on_token(self, index: int, token: Token) -> None:
        """Write what this token brings, and the end of the stream with the last."""
        events = b"" if self._begun else self._roles()
        self._begun = True
        if token.finish_reason != "abort":
            self._produced[index] += 1
        deltas = self._deltas(index, token)
        finished = token.finish_reason is not None
        if not deltas and (self._with_ids or finished):
            deltas = [b"{}"]
        last = len(deltas) - 1
        chunks = [self._chunk(index, delta, token, last=at == last) for at, delta in enumerate(deltas)]
        events += marred(b"".join(chunks), token)
        if finished:
            self._left -= 1
            if self._left == 0:
                events += self._end()
        if events:
            self._stream.send(events)

    def _deltas(self, index: int, token: Token) -> list[bytes]:
        if self._readers is None:
            return [b'{"content":%b}' % orjson.dumps(token.text)] if token.text else []
        # A call that never got its name is not told at all; so the reader's end is not asked for.
        return [self._delta(index, piece) for piece in self._readers[index].feed(token.text)]

    def _delta(self, index: int, piece: Piece) -> bytes:
        if piece.content is not None:
            return b'{"content":%b}' % orjson.dumps(piece.content)
        call: dict[str, Any]
        if piece.name is not None:
            self._called[index] = True
            call = {"id": call_id(), "type": "function", "index": 0, "function": {"name": piece.name}}
        else:
            call = {"index": 0, "function": {"arguments": piece.arguments}}
        return b'{"content":null,"tool_calls":[%b]}' % orjson.dumps(call)

    def _chunk(self, index: int, delta: bytes, token: Token, *, last: bool) -> bytes:
        """One chunk; a token's id goes with the last of the chunks that it makes."""
        if not self._with_ids:
            ids = b"null"
        else:
            ids = b"[%d]" % token.id if last and token.finish_reason != "abort" else b"[]"
        tail = b',"usage":%b}\n\n' % self._running_usage(index) if self._with_usage else b"}\n\n"
        if token.finish_reason is None or not last:
            return b'%b{"index":%d,"delta":%b,"logprobs":null,"finish_reason":null,"token_ids":%b}]%b' % (
                self._head,
                index,
                delta,
                ids,
                tail,
            )
        finish = token.finish_reason
        if finish == "stop" and self._called[index]:
            finish = finish_with_call(self._chat)
        if not self._chat.wants_usage:
            tail = tail[:-3] + b',"system_fingerprint":"%b"}\n\n' % FINGERPRINT.encode()
        return b'%b{"index":%d,"delta":%b,"logprobs":null,"finish_reason":"%b","stop_reason":%b,"token_ids":%b}]%b' % (
            self._head,
            index,
            delta,
            finish.encode(),
            orjson.dumps(token.stop_reason),
            ids,
            tail,
        )

    def _roles(self) -> bytes:
        ids = orjson.dumps(self._prompt) if self._with_ids else b"null"
        running = b'"usage":%b,' % self._running_usage(0) if self._with_usage else b""
        return b"".join(
            b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
            b'%b"prompt_token_ids":%b,"prompt_text":null}\n\n' % (self._head, index, running, ids)
            for index in range(len(self._produced))
        )

    def _end(self) -> bytes:
        if not self._chat.wants_usage:
            return DONE
        return b'%b],"usage":%b,"system_fingerprint":"%b"}\n\n%b' % (
            self._head,
            streamed_usage(len(self._prompt), sum(self._produced)),
            FINGERPRINT.encode(),
            DONE,
        )

    def _running_usage(self, index: int) -> bytes:
        so_far = streamed_usage(len(self._prompt), self._produced[index])
        return so_far[:-1] + b',"completion_tokens_details":null}'
