"""`derender`: what `generate` answered in token ids, told as a chat or as completions; whole, or chunk by chunk.

As vLLM 0.32 does it with a tool parser, with its three surprises. A chat shows its end token, as a parser may want
to see markers: who wants the engine's own text leaves the last id of an answer that ended with "stop" out. A chat
that has called a tool says "tool_calls" however it ended, by its length too. And stop strings are not looked for.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from shrk_node_agent.engine.simulated import chat as chats
from shrk_node_agent.engine.simulated import completions, requests
from shrk_node_agent.engine.simulated.derender_requests import (
    AnyChatDerender,
    AnyCompletionDerender,
    Chunk,
    ChunkChoice,
    DerenderChatRequest,
    DerenderChatStreamRequest,
    DerenderCompletionRequest,
    DerenderCompletionStreamRequest,
    Generated,
    GeneratedChoice,
    StreamState,
)
from shrk_node_agent.engine.simulated.engine_room import Choice, EngineRoom, usage
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.requests import ChatRequest, CompletionRequest, NamedTool
from shrk_node_agent.engine.simulated.tool_calls import Piece, ToolCallReader
from shrk_node_agent.engine.simulated.vocabulary import Decoder

#: What vLLM carries along to tell log-probabilities of broken characters.
CONTEXT_TOKENS = 4


async def derender_chat(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """What `generate` answered, as the chat would have."""
    wanted = (await requests.read(request, AnyChatDerender)).root
    if wanted.chat_request is not None:
        requests.check_chat_options(wanted.chat_request)
    room.check_model(wanted.model)
    if isinstance(wanted, DerenderChatStreamRequest):
        return json_response(_chat_chunk(room, wanted, _chat_of(wanted)))
    _check_answers(room, [wanted.generate_response])
    _check_prompt(room, wanted.prompt_token_ids)
    return json_response(_whole_chat(room, wanted, _chat_of(wanted)))


async def derender_completion(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """What `generate` answered, as the completions would have."""
    wanted = (await requests.read(request, AnyCompletionDerender)).root
    room.check_model(wanted.model)
    if isinstance(wanted, DerenderCompletionStreamRequest):
        _check_prompt(room, wanted.prompt_token_ids)
        return json_response(_completion_chunk(room, wanted))
    if not wanted.generate_responses:
        raise Refusal("generate_responses must not be empty")
    _check_answers(room, wanted.generate_responses)
    for prompt in wanted.prompt_token_ids or ():
        _check_prompt(room, prompt)
    return json_response(_whole_completion(room, wanted))


def _chat_of(wanted: DerenderChatRequest | DerenderChatStreamRequest) -> ChatRequest:
    if wanted.chat_request is None:
        raise Refusal(
            "chat_request is required when a tool or reasoning parser is configured because plain "
            "detokenization would leak raw parser markup into content."
        )
    return wanted.chat_request


def _check_answers(room: EngineRoom, answers: list[Generated]) -> None:
    for answer in answers:
        for choice in answer.choices:
            if choice.token_ids and len(choice.token_ids) > room.context_tokens:
                raise Refusal(
                    f"token_ids length ({len(choice.token_ids)}) in choice {choice.index} "
                    f"exceeds max_model_len ({room.context_tokens})."
                )


def _check_prompt(room: EngineRoom, ids: list[int] | None) -> None:
    if ids is not None and len(ids) > room.context_tokens:
        raise Refusal(f"prompt_token_ids length ({len(ids)}) exceeds max_model_len ({room.context_tokens}).")


def _whole_chat(room: EngineRoom, wanted: DerenderChatRequest, chat: ChatRequest) -> dict[str, Any]:
    answer = wanted.generate_response
    body = chats.completion_body(chat, answer.request_id, room.now(), wanted.model or room.model, [], [])
    for choice in answer.choices:
        ids = _ids_of(choice, f"choice {choice.index}")
        told = {
            "index": choice.index,
            "message": chats.message_of(chat, Decoder(end_shows=True).add(ids)),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": ids if chat.return_token_ids else None,
            "routed_experts": None,
        }
        body["choices"].append(told)
    body["usage"] = usage(wanted.prompt_tokens or 0, sum(len(choice.token_ids or ()) for choice in answer.choices))
    return body | {"system_fingerprint": None, "prompt_token_ids": None}


def _ids_of(choice: GeneratedChoice, name: str) -> list[int]:
    if not choice.token_ids:
        raise Refusal(f"{name} has empty or null token_ids")
    return choice.token_ids


def _whole_completion(room: EngineRoom, wanted: DerenderCompletionRequest) -> dict[str, Any]:
    answers = wanted.generate_responses
    choices = []
    for answer in answers:
        for choice in answer.choices:
            ids = _ids_of(choice, f"choice {choice.index} in response {answer.request_id}")
            choices.append(Choice(ids, Decoder().add(ids)))
    # Of the request only what shapes the body matters: neither ids nor the prompt are repeated.
    plain = CompletionRequest(n=max(1, len(choices)))
    model = wanted.model or room.model
    body = completions.completion_body(plain, answers[0].request_id, room.now(), model, [[]], choices)
    given = [choice for answer in answers for choice in answer.choices]
    for told, choice in zip(body["choices"], given, strict=True):
        told |= {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
    body["usage"] = usage(sum(wanted.prompt_tokens or ()), sum(len(choice.ids) for choice in choices))
    return body | {"system_fingerprint": None}


def _chat_chunk(room: EngineRoom, wanted: DerenderChatStreamRequest, chat: ChatRequest) -> dict[str, Any]:
    state = wanted.stream_state or StreamState()
    _check_chunk(room, wanted, state)
    chunk = _chunk(room, wanted, "chat.completion.chunk") | {"prompt_token_ids": None, "prompt_text": None}
    for choice in wanted.generate_chunk.choices:
        pieces = _pieces(chat, state, choice)
        delta: dict[str, Any] = {
            "role": None if state.role_sent else "assistant",
            "content": "".join(piece.content or "" for piece in pieces) or None,
            "reasoning": None,
        }
        if calls := _calls(pieces, state.last_tool_call_ids):
            delta["tool_calls"] = calls
        state = _advanced(state, choice, calls)
        called = state.tools_streamed and not isinstance(chat.tool_choice, NamedTool)
        told = _told(choice) | {"delta": delta, "token_ids": choice.token_ids if chat.return_token_ids else None}
        told["finish_reason"] = "tool_calls" if choice.finish_reason and called else choice.finish_reason
        chunk["choices"].append(told)
    return {"chunk": chunk, "stream_state": state.model_dump()}


def _check_chunk(room: EngineRoom, wanted: DerenderChatStreamRequest, state: StreamState) -> None:
    choices = wanted.generate_chunk.choices
    if wanted.prompt_token_ids is None:
        raise Refusal(
            "prompt_token_ids is required when a tool or reasoning parser is configured. Without it parse_delta "
            "cannot tell whether the prompt left reasoning open (e.g. a chat template that pre-opens <think>) and "
            "would misclassify reasoning content as plain content."
        )
    if len(choices) > 1:
        raise Refusal(f"derender_chat_stream expects at most one choice per chunk (got {len(choices)}).")
    prompt, prior = len(wanted.prompt_token_ids), len(state.output_token_ids)
    delta = sum(len(choice.token_ids or ()) for choice in choices)
    if prompt + prior + delta > room.context_tokens:
        raise Refusal(
            f"prompt_token_ids length ({prompt}) plus output_token_ids length ({prior}) plus delta ({delta}) "
            f"exceeds max_model_len ({room.context_tokens})."
        )


def _pieces(chat: ChatRequest, state: StreamState, choice: ChunkChoice) -> list[Piece]:
    """What a chunk says, once all that came before it was read again."""
    if not choice.token_ids:
        return []
    decoder = Decoder(end_shows=True)
    reader = ToolCallReader() if chats.calls_tools(chat) else None
    pieces: list[Piece] = []
    for ids in (*state.chunks(), choice.token_ids):
        text = decoder.add(ids)
        pieces = reader.feed(text) if reader else [Piece(content=text)]
    return pieces


def _calls(pieces: list[Piece], known_ids: list[str]) -> list[dict[str, Any]]:
    """The deltas of a chunk's call: its beginning, its arguments, or one after the other."""
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.name is not None:
            # A call that was told before keeps its id, whatever is read anew.
            call_id = known_ids[0] if known_ids else chats.call_id()
            function: dict[str, Any] = {"name": piece.name, "arguments": None}
            calls.append({"id": call_id, "type": "function", "index": 0, "function": function})
    if arguments := "".join(piece.arguments or "" for piece in pieces):
        function = {"name": None, "arguments": arguments}
        calls.append({"id": None, "type": None, "index": 0, "function": function})
    return calls


def _advanced(state: StreamState, choice: ChunkChoice, calls: list[dict[str, Any]]) -> StreamState:
    ids = choice.token_ids or []
    new_ids = [call["id"] for call in calls if call["id"] is not None]
    changes = {
        "output_token_ids": state.output_token_ids + ids,
        "output_chunk_lens": state.output_chunk_lens + ([len(ids)] if ids else []),
        "role_sent": True,
        "tools_streamed": state.tools_streamed or bool(calls),
        "last_tool_call_ids": state.last_tool_call_ids or new_ids,
    }
    return state.model_copy(update=changes)


def _completion_chunk(room: EngineRoom, wanted: DerenderCompletionStreamRequest) -> dict[str, Any]:
    state = wanted.stream_state or StreamState()
    if len(wanted.generate_chunk.choices) > 1:
        raise Refusal("derender_completion_stream expects at most one choice per chunk")
    chunk = _chunk(room, wanted, "text_completion")
    for choice in wanted.generate_chunk.choices:
        ids = choice.token_ids or []
        decoder = Decoder(state.prev_tokens, state.prefix_offset, state.read_offset)
        text = decoder.add(ids)
        changes = {
            "prev_tokens": decoder.latest,
            "prefix_offset": decoder.start,
            "read_offset": decoder.shown,
            "logprob_context_token_ids": (state.logprob_context_token_ids + ids)[-CONTEXT_TOKENS:],
            "logprob_text_offset": state.logprob_text_offset + len(text),
        }
        state = state.model_copy(update=changes)
        chunk["choices"].append(_told(choice) | {"text": text, "prompt_token_ids": None, "token_ids": None})
    return {"chunk": chunk, "stream_state": state.model_dump()}


def _chunk(
    room: EngineRoom, wanted: DerenderChatStreamRequest | DerenderCompletionStreamRequest, kind: str
) -> dict[str, Any]:
    """A chunk without its choices."""
    given: Chunk = wanted.generate_chunk
    told = None
    if given.usage is not None:
        prompt = given.usage.prompt_tokens if wanted.prompt_tokens is None else wanted.prompt_tokens
        told = usage(prompt, given.usage.completion_tokens or 0)
    return {
        "id": given.request_id,
        "object": kind,
        "created": room.now(),
        "model": wanted.model or room.model,
        "choices": [],
        "usage": told,
        "system_fingerprint": None,
        "metrics": None,
    }


def _told(choice: ChunkChoice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
    }
