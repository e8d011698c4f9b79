"""What is asked of `derender`: types, names and bounds as vLLM has them, so that its refusals read the same."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field, RootModel, field_validator, model_validator

from shrk_node_agent.engine.simulated.requests import ChatRequest, CompletionRequest

#: vLLM's own bound of what is carried along to decode the next token: a handful is usual.
LATEST_TOKENS_MAX = 1024

NonNegative = Annotated[int, Field(ge=0)]


def _some_id() -> str:
    return secrets.token_hex(8)


class Usage(BaseModel):
    """What a chunk counts."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class GeneratedChoice(BaseModel):
    """One choice of a generated answer."""

    index: int
    finish_reason: str | None = "stop"
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class Generated(BaseModel):
    """What `generate` answered, whole."""

    request_id: str = Field(default_factory=_some_id)
    output_mode: Literal["tokens"] = "tokens"
    choices: list[GeneratedChoice]


class ChunkChoice(BaseModel):
    """What a chunk says of one choice."""

    index: int
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class Chunk(BaseModel):
    """One event of a streamed `generate`."""

    request_id: str = Field(default_factory=_some_id)
    usage: Usage | None = None
    output_mode: Literal["tokens"] = "tokens"
    choices: list[ChunkChoice]


class StreamState(BaseModel):
    """What a stream's reader carries from call to call. A chat is read anew each time, in its chunks of old."""

    prev_tokens: list[str] = Field(default_factory=list)
    prefix_offset: int = Field(default=0, ge=0)
    read_offset: int = Field(default=0, ge=0)
    role_sent: bool = False
    logprob_context_token_ids: list[int] = Field(default_factory=list, max_length=4)
    logprob_text_offset: int = Field(default=0, ge=0)
    output_token_ids: list[int] = Field(default_factory=list)
    output_chunk_lens: list[Annotated[int, Field(gt=0)]] = Field(default_factory=list)
    tools_streamed: bool = False
    last_tool_call_ids: list[str] = Field(default_factory=list)

    @field_validator("prev_tokens")
    @classmethod
    def _few(cls, tokens: list[str]) -> list[str]:
        if len(tokens) > LATEST_TOKENS_MAX:
            raise ValueError(f"prev_tokens length ({len(tokens)}) exceeds maximum ({LATEST_TOKENS_MAX})")
        return tokens

    @model_validator(mode="after")
    def _adds_up(self) -> StreamState:
        total, held = sum(self.output_chunk_lens), len(self.output_token_ids)
        if total != held:
            raise ValueError(
                f"output_chunk_lens must sum to len(output_token_ids) (got sum={total}, len(output_token_ids)={held})"
            )
        return self

    def chunks(self) -> Iterator[list[int]]:
        """The ids so far, as they came."""
        ends = itertools.accumulate(self.output_chunk_lens)
        for length, end in zip(self.output_chunk_lens, ends, strict=True):
            yield self.output_token_ids[end - length : end]


class DerenderChatRequest(BaseModel):
    """`/v1/chat/completions/derender`, whole."""

    stream: Literal[False] = False
    model: str | None = None
    generate_response: Generated
    prompt_tokens: int | None = None
    prompt_token_ids: list[NonNegative] | None = None
    chat_request: ChatRequest | None = None


class DerenderChatStreamRequest(BaseModel):
    """`/v1/chat/completions/derender`, one chunk of a stream."""

    stream: Literal[True]
    model: str | None = None
    generate_chunk: Chunk
    stream_state: StreamState | None = None
    prompt_tokens: int | None = None
    prompt_token_ids: list[NonNegative] | None = None
    chat_request: ChatRequest | None = None


class DerenderCompletionRequest(BaseModel):
    """`/v1/completions/derender`, whole: one answer for each prompt."""

    stream: Literal[False] = False
    model: str | None = None
    generate_responses: list[Generated]
    prompt_tokens: list[int] | None = None
    prompt_token_ids: list[list[NonNegative] | None] | None = None
    completion_request: CompletionRequest | None = None

    @model_validator(mode="after")
    def _one_for_each(self) -> DerenderCompletionRequest:
        answers = len(self.generate_responses)
        for name in ("prompt_tokens", "prompt_token_ids"):
            given = getattr(self, name)
            if given is not None and len(given) != answers:
                raise ValueError(f"{name} length ({len(given)}) must equal generate_responses length ({answers})")
        return self


class DerenderCompletionStreamRequest(BaseModel):
    """`/v1/completions/derender`, one chunk of a stream."""

    stream: Literal[True]
    model: str | None = None
    generate_chunk: Chunk
    stream_state: StreamState | None = None
    prompt_tokens: int | None = None
    prompt_token_ids: list[NonNegative] | None = None
    completion_request: CompletionRequest | None = None


class AnyChatDerender(RootModel[DerenderChatRequest | DerenderChatStreamRequest]):
    """Either, as its `stream` says."""


class AnyCompletionDerender(RootModel[DerenderCompletionRequest | DerenderCompletionStreamRequest]):
    """Either, as its `stream` says."""
