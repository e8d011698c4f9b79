"""`/v1/completions`, whole and streamed: text or token ids in, one or many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from shrk_node_agent.engine.simulated import requests
from shrk_node_agent.engine.simulated.engine_room import (
    FINGERPRINT,
    Choice,
    EngineRoom,
    streamed_usage,
    usage,
)
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.requests import CHOICES_MAX, CompletionRequest
from shrk_node_agent.engine.simulated.sequences import Sampling, Token
from shrk_node_agent.engine.simulated.streams import DONE, EventStream, marred
from shrk_node_agent.engine.simulated.vocabulary import SIZE, decode, encode


async def serve_completion(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    """Answer one request for completions."""
    completion = await requests.read(request, CompletionRequest)
    room.check_model(completion.model)
    prompts = prompts_of(completion)
    samplings = samplings_of(room, completion, prompts)
    request_id = room.request_id(request, completion.request_id, "cmpl")
    if not completion.stream:
        choices = await room.collect(request_id, prompts, samplings)
        return json_response(completion_body(completion, request_id, room.now(), room.model, prompts, choices))
    stream = EventStream(request)
    chunks = CompletionChunks(completion, request_id, room.now(), room.model, prompts, stream)
    await stream.open()
    await room.answer(request_id, prompts, samplings, chunks.on_token, stream.blocked)
    return await stream.close()


def prompts_of(completion: CompletionRequest) -> list[list[int]]:
    """Each prompt's ids; Refusal where one cannot be."""
    requests.check_completion(completion)
    prompts = id_lists(completion.prompt)
    if len(prompts) * (completion.n or 1) > CHOICES_MAX:
        raise Refusal(f"at most {CHOICES_MAX} answers (prompts times n) may be asked for in one request")
    return prompts


def id_lists(given: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | None) -> list[list[int]]:
    """Prompts as OpenAI allows them (text, ids, or a list of either) as lists of ids."""
    whole: list[int] = []
    lists: list[list[int]] = []
    for item in (given,) if isinstance(given, str) else given or ():
        if isinstance(item, int):
            whole.append(item)
        else:
            lists.append(encode(item) if isinstance(item, str) else list(item))
    lists = [whole] if whole else lists
    for ids in lists:
        if not ids:
            raise Refusal("The decoder prompt cannot be empty")
        if min(ids) < 0 or max(ids) >= SIZE:
            raise Refusal(f"Token id {max(ids)} is out of vocabulary")
    return lists


def samplings_of(
    room: EngineRoom, completion: CompletionRequest, prompts: Sequence[Sequence[int]]
) -> list[list[Sampling]]:
    """How each choice of each prompt is sampled; Refusal where it cannot be."""
    limit = completion.max_tokens
    return [requests.samplings(completion, len(ids), room.context_tokens, limit) for ids in prompts]


def completion_body(
    completion: CompletionRequest,
    request_id: str,
    created: int,
    model: str,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Choice],
) -> dict[str, Any]:
    """A `text_completion` with all the fields that vLLM gives it."""
    n = completion.n or 1
    return {
        "id": request_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": index,
                "text": (decode(prompts[index // n]) if completion.echo else "") + choice.text,
                "logprobs": None,
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
                "token_ids": choice.ids if completion.return_token_ids else None,
                "prompt_logprobs": None,
                "prompt_token_ids": list(prompts[index // n]) if completion.return_token_ids else None,
                "routed_experts": None,
            }
            for index, choice in enumerate(choices)
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(sum(map(len, prompts)), sum(len(choice.ids) for choice in choices)),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


class CompletionChunks:
    """Writes the chunks of a request for completions."""

    def __init__(
        self,
        completion: CompletionRequest,
        request_id: str,
        created: int,
        model: str,
        prompts: list[list[int]],
        stream: EventStream,
    ) -> None:
        self._n = completion.n or 1
        self._completion = completion
        self._prompts = prompts
        self._stream = stream
        self._head = b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[' % (
            orjson.dumps(request_id),
            created,
            orjson.dumps(model),
        )
        self._left = len(prompts) * self._n
        self._produced = [0] * self._left

    def on_token(self, index: int, token: Token) -> None:
        """Write what this token brings, and the end of the stream with the last."""
        prompt = self._prompts[index // self._n]
        first = self._produced[index] == 0
        if token.finish_reason != "abort":
            self._produced[index] += 1
        text = decode(prompt) + token.text if first and self._completion.echo else token.text
        events = b""
        if text or token.finish_reason is not None or self._completion.return_token_ids:
            events = marred(self._chunk(index, text, token, prompt, first=first), token)
        if token.finish_reason is not None:
            self._left -= 1
            if self._left == 0:
                events += self._end()
        if events:
            self._stream.send(events)

    def _chunk(self, index: int, text: str, token: Token, prompt: list[int], *, first: bool) -> bytes:
        ids = prompt_ids = b"null"
        if self._completion.return_token_ids:
            ids = b"[]" if token.finish_reason == "abort" else b"[%d]" % token.id
            prompt_ids = orjson.dumps(prompt) if first else b"null"
        tail = b"}\n\n"
        if self._completion.wants_running_usage:
            tail = b',"usage":%b}\n\n' % streamed_usage(len(prompt), self._produced[index])
        if token.finish_reason is not None and not self._completion.wants_usage:
            tail = tail[:-3] + b',"system_fingerprint":"%b"}\n\n' % FINGERPRINT.encode()
        return (
            b'%b{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b,"stop_reason":%b,'
            b'"prompt_token_ids":%b,"token_ids":%b}]%b'
        ) % (
            self._head,
            index,
            orjson.dumps(text),
            orjson.dumps(token.finish_reason),
            orjson.dumps(token.stop_reason),
            prompt_ids,
            ids,
            tail,
        )

    def _end(self) -> bytes:
        if not self._completion.wants_usage:
            return DONE
        return b'%b],"usage":%b,"system_fingerprint":"%b"}\n\n%b' % (
            self._head,
            streamed_usage(sum(map(len, self._prompts)), sum(self._produced)),
            FINGERPRINT.encode(),
            DONE,
        )
