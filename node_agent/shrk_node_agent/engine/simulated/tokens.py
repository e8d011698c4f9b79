"""Token ids in, token ids out: render, generate and abort, what continuing a broken stream needs."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel

from shrk_node_agent.engine.simulated import chat as chats
from shrk_node_agent.engine.simulated import completions, errors, requests
from shrk_node_agent.engine.simulated.engine_room import Choice, EngineRoom, streamed_usage, usage
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.requests import (
    COMPLETION_TOKENS_DEFAULT,
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    GenerationFields,
    Message,
    Tool,
    structured_outputs,
)
from shrk_node_agent.engine.simulated.sequences import Sampling, Token
from shrk_node_agent.engine.simulated.streams import DONE, EventStream, marred
from shrk_node_agent.engine.simulated.vocabulary import decode, encode


class TokenizeRequest(BaseModel):
    """`/tokenize`: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class DetokenizeRequest(BaseModel):
    """`/detokenize`."""

    model: str | None = None
    tokens: list[int]


async def render_chat(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """A chat as a request for `generate`."""
    chat = await requests.read(request, ChatRequest)
    room.check_model(chat.model)
    prompt = chats.prompt_of(chat)
    sampling = chats.samplings_of(room, chat, prompt)[0]
    request_id = room.request_id(request, chat.request_id, "chatcmpl")
    return json_response(_rendered(room, chat, request_id, prompt, sampling))


async def render_completion(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """A request for completions as requests for `generate`, one for each prompt."""
    completion = await requests.read(request, CompletionRequest)
    room.check_model(completion.model)
    prompts = completions.prompts_of(completion)
    samplings = completions.samplings_of(room, completion, prompts)
    request_id = room.request_id(request, completion.request_id, "cmpl")
    pairs = enumerate(zip(prompts, samplings, strict=True))
    return json_response(
        [_rendered(room, completion, f"{request_id}-{i}", prompt, mine[0]) for i, (prompt, mine) in pairs]
    )


def _rendered(
    room: EngineRoom, fields: GenerationFields, request_id: str, prompt: list[int], sampling: Sampling
) -> dict[str, Any]:
    params: dict[str, Any] = {
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "stop": list(sampling.stop),
        "stop_token_ids": [],
        "output_kind": 2,
        "skip_clone": True,
        "bad_words": [],
        "skip_reading_prefix_cache": False,
    }
    # Only what differs from a default is told, as vLLM does: so 16 tokens are not, and `generate` knows no bound then.
    told: dict[str, Any] = {
        "max_tokens": sampling.max_tokens if sampling.max_tokens != COMPLETION_TOKENS_DEFAULT else None,
        "n": fields.n if (fields.n or 1) > 1 else None,
        "seed": fields.seed,
        "top_p": fields.top_p if fields.top_p not in (None, 1) else None,
        "ignore_eos": fields.ignore_eos or None,
        "min_tokens": fields.min_tokens or None,
        "include_stop_str_in_output": fields.include_stop_str_in_output or None,
        "structured_outputs": structured_outputs(fields),
    }
    params |= {name: value for name, value in told.items() if value is not None}
    return {
        "request_id": request_id,
        "token_ids": prompt,
        "token_offsets": None,
        "features": None,
        "content_parts": None,
        "sampling_params": params,
        "model": room.model,
        "reasoning_ended": None,
        "reasoning_parser_kwargs": None,
        "return_token_ids": fields.return_token_ids,
        "output_mode": "tokens",
        "stream": bool(fields.stream),
        "stream_options": fields.stream_options.model_dump() if fields.stream_options else None,
        "cache_salt": None,
        "priority": 0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
    }


async def generate(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Go on from token ids."""
    wanted = await requests.read(request, GenerateRequest)
    room.check_model(wanted.model)
    prompt = wanted.token_ids
    if len(prompt) > room.context_tokens:
        raise Refusal(
            f"The decoder prompt (length {len(prompt)}) is longer than the maximum model length of "
            f"{room.context_tokens}. Make sure that `max_model_len` is no smaller than the number of text tokens."
        )
    completions.id_lists(prompt)  # Refuses ids that are not in the vocabulary.
    params = wanted.sampling_params
    samplings = requests.samplings(params, len(prompt), room.context_tokens, params.max_tokens)
    request_id = room.request_id(request, wanted.request_id, "generate-tokens")
    if not wanted.stream:
        choices = await room.collect(request_id, [prompt], [samplings])
        return json_response(_generated(room, wanted, request_id, choices))
    stream = EventStream(request)
    chunks = GenerateChunks(wanted, request_id, stream)
    await stream.open()
    await room.answer(request_id, [prompt], [samplings], chunks.on_token, stream.blocked)
    return await stream.close()


def _generated(room: EngineRoom, wanted: GenerateRequest, request_id: str, choices: list[Choice]) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "model": room.model,
        "created": room.now(),
        "usage": usage(len(wanted.token_ids), sum(len(choice.ids) for choice in choices)),
        "prompt_logprobs": None,
        "prompt_token_id_logprobs": None,
        "prompt_token_ids": wanted.token_ids if wanted.return_token_ids else None,
        "mm_placeholders": None,
        "metrics": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "output_mode": wanted.output_mode,
        "choices": [
            _generated_choice(wanted, index, choice.ids, choice.text, choice.finish_reason, choice.stop_reason)
            | {"weight_versions": _weights(len(choice.ids))}
            for index, choice in enumerate(choices)
        ],
    }


def _generated_choice(
    wanted: GenerateRequest, index: int, ids: list[int], text: str, finish: str | None, stop: str | None
) -> dict[str, Any]:
    choice = {
        "index": index,
        "finish_reason": finish,
        "stop_reason": stop,
        "token_ids": ids,
        "routed_experts": None,
        "sampling_mask": None,
        "weight_versions": None,
        "logprobs": None,
    }
    return choice | {"text": text} if wanted.output_mode == "text" else choice


def _weights(tokens: int) -> list[dict[str, Any]]:
    return [{"version": "default", "start": 0, "end": tokens}]


class GenerateChunks:
    """Writes the chunks of a `generate` request."""

    def __init__(self, wanted: GenerateRequest, request_id: str, stream: EventStream) -> None:
        self._wanted = wanted
        self._request_id = request_id
        self._stream = stream
        self._left = wanted.sampling_params.n
        self._produced = [0] * self._left
        self._begun = False

    def on_token(self, index: int, token: Token) -> None:
        """Write what this token brings, and the end of the stream with the last."""
        ids = [] if token.finish_reason == "abort" else [token.id]
        self._produced[index] += len(ids)
        choice = _generated_choice(self._wanted, index, ids, token.text, token.finish_reason, token.stop_reason)
        if token.finish_reason is not None:
            choice["weight_versions"] = _weights(self._produced[index])
            self._left -= 1
        told = usage(len(self._wanted.token_ids), self._produced[index]) if self._wanted.wants_running_usage else None
        chunk: dict[str, Any] = {"request_id": self._request_id, "usage": told, "choices": [choice]}
        chunk["output_mode"] = self._wanted.output_mode
        if not self._begun and self._wanted.return_token_ids:
            chunk["prompt_token_ids"] = self._wanted.token_ids
        self._begun = True
        events = marred(b"data: %b\n\n" % orjson.dumps(chunk), token)
        self._stream.send(events + (self._end() if self._left == 0 else b""))

    def _end(self) -> bytes:
        if not self._wanted.wants_usage:
            return DONE
        told = orjson.loads(streamed_usage(len(self._wanted.token_ids), sum(self._produced)))
        last = {"request_id": self._request_id, "usage": told, "choices": []}
        last["output_mode"] = self._wanted.output_mode
        return b"data: %b\n\n%b" % (orjson.dumps(last), DONE)


async def abort(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """End requests early; ids that are not known are passed over."""
    ids = (await requests.read_object(request)).get("request_ids")
    if not isinstance(ids, list):
        raise Refusal("Missing 'request_ids' in request body", kind="Bad Request")
    for request_id in ids:
        room.stepper.abort(str(request_id))
    return web.Response()


async def tokenize(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Text or a conversation as ids."""
    wanted = await requests.read(request, TokenizeRequest)
    room.check_model(wanted.model)
    if wanted.messages is not None:
        ids = chats.prompt_of(ChatRequest(messages=wanted.messages, tools=wanted.tools))
    elif wanted.prompt is not None:
        ids = encode(wanted.prompt)
    else:
        raise errors.not_json("missing", "body.prompt", "Field required", "<dict of 1 items>")
    told = {"count": len(ids), "max_model_len": room.context_tokens, "tokens": ids, "token_strs": None}
    return json_response(told)


async def detokenize(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Ids as text."""
    wanted = await requests.read(request, DetokenizeRequest)
    room.check_model(wanted.model)
    completions.id_lists(wanted.tokens)
    return json_response({"prompt": decode(wanted.tokens)})
