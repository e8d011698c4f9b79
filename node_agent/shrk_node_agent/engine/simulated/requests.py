"""What callers may ask, as vLLM reads it: types, defaults and the refusals of what is out of range."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from shrk_node_agent.engine.simulated import errors, prompts
from shrk_node_agent.engine.simulated.errors import Refusal, invalid_value
from shrk_node_agent.engine.simulated.sequences import Sampling

#: The body of one request: an agent's 100,000 tokens of context are below half a megabyte.
BODY_BYTES_MAX = 16 * 1024 * 1024
#: Answers to one prompt, and prompts in one request: more would only be a way to ask for too much at once.
CHOICES_MAX = 128
#: What completions answer where the caller names no limit.
COMPLETION_TOKENS_DEFAULT = 16

_INT64 = 2**63

Model = TypeVar("Model", bound=BaseModel)


class StreamOptions(BaseModel):
    """How usage is told in a stream."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Function(BaseModel):
    """A tool's name and the schema of its arguments."""

    name: str
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool the model may call."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(BaseModel):
    """The one tool that has to be called."""

    name: str


class NamedTool(BaseModel):
    """A tool choice that names one."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(BaseModel):
    """The schema of an answer; `schema` on the wire."""

    name: str
    document: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    """Free text or JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class CalledFunction(BaseModel):
    """A call in an earlier turn."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A tool call in an earlier turn."""

    id: str | None = None
    function: CalledFunction


class Message(BaseModel):
    """One turn of a conversation."""

    role: str
    content: str | list[str | dict[str, Any]] | None = None
    tool_calls: list[ToolCall] | None = None


class StreamFields(BaseModel):
    """Whether an answer is streamed, and how its usage is told then."""

    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """A chunk with the usage before the end of the stream."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        """The usage so far in every chunk."""
        return bool(self.wants_usage and self.stream_options and self.stream_options.continuous_usage_stats)


class GenerationFields(StreamFields):
    """What all ways of asking for text share."""

    model: str | None = None
    request_id: str | None = None
    n: int | None = 1
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    temperature: float | None = None
    top_p: float | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    return_token_ids: bool | None = None
    response_format: ResponseFormat | None = None


class ChatRequest(GenerationFields):
    """`/v1/chat/completions`."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None


class CompletionRequest(GenerationFields):
    """`/v1/completions`."""

    prompt: str | list[int] | list[list[int]] | list[str] | None = None
    max_tokens: int | None = COMPLETION_TOKENS_DEFAULT
    echo: bool = False


class StructuredOutputs(BaseModel):
    """A grammar that the answer has to keep to; `json` on the wire is a schema."""

    document: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None


class SamplingParams(BaseModel):
    """The sampling of a request in token ids."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = None
    min_tokens: int = 0
    structured_outputs: StructuredOutputs | None = None


class GenerateRequest(StreamFields):
    """`/inference/v1/generate`: token ids in, token ids out."""

    token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    sampling_params: SamplingParams
    model: str | None = None
    request_id: str | None = None
    output_mode: Literal["tokens", "text"] = "tokens"
    return_token_ids: bool | None = None


class EmbeddingRequest(BaseModel):
    """`/v1/embeddings`."""

    model: str | None = None
    input: str | list[int] | list[list[int]] | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


async def read(request: web.Request, model: type[Model]) -> Model:
    """The request's body as a `model`; Refusal where it is none."""
    return parse(await read_object(request), model)


def parse(body: dict[str, Any], model: type[Model]) -> Model:
    """A JSON object as a `model`; Refusal where it is none."""
    try:
        return model.model_validate(body, from_attributes=True)  # As FastAPI does: it words one refusal differently.
    except ValidationError as error:
        raise errors.invalid_fields(error) from error


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's body, a JSON object; Refusal where it is none."""
    if request.content_type != "application/json":
        reason = "Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(f"1 validation error:\n  {reason}", kind="Bad Request")
    raw = await request.read()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as fast:
        try:
            json.loads(raw)
        except UnicodeDecodeError:
            raise errors.not_json("json_invalid", "body.0", "JSON decode error", "<dict of 0 items>") from fast
        except json.JSONDecodeError as error:  # Tells where and what, in the words that vLLM passes on.
            place = f"body.{error.pos}"
            raise errors.not_json(
                "json_invalid", place, "JSON decode error", "<dict of 0 items>", error=error.msg
            ) from error
        raise Refusal(f"1 validation error:\n  {fast}", kind="Bad Request", param="body") from fast
    if not isinstance(body, dict):
        shown = f"<list of {len(body)} items>" if isinstance(body, list) else str(body)[: errors.INPUT_CHARS_MAX]
        reason = "Input should be a valid dictionary or object to extract fields from"
        raise errors.not_json("model_attributes_type", "body", reason, shown)
    return body


def check_chat(chat: ChatRequest) -> None:
    """What vLLM refuses of a chat beyond its types."""
    check_chat_options(chat)
    if not chat.messages:
        raise Refusal("Cannot apply chat template to an empty conversation. Provide at least one message.")
    for message in chat.messages:
        for part in message.content if isinstance(message.content, list) else ():
            if isinstance(part, dict) and part.get("type", "text") not in ("text", "input_text", "refusal"):
                raise Refusal(f"At most 0 {part.get('type')} item(s) may be provided in one prompt.")


def check_chat_options(chat: ChatRequest) -> None:
    """What vLLM refuses of a chat that is not to be answered (any more), beyond its types."""
    _check_stream_options(chat)
    if chat.tools == []:
        raise Refusal(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. "
            "(parameter=tools)",
            param="tools",
        )
    if chat.tool_choice not in (None, "none") and not chat.tools:
        raise Refusal("When using `tool_choice`, `tools` must be set. (parameter=tool_choice)", param="tool_choice")


def check_completion(completion: CompletionRequest) -> None:
    """What vLLM refuses of a completion beyond its types."""
    _check_stream_options(completion)
    if completion.prompt is None or completion.prompt in ("", []):
        raise Refusal(
            "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", param="prompt"
        )


def _check_stream_options(fields: GenerationFields) -> None:
    if fields.stream_options and not fields.stream:
        raise Refusal(
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            param="stream_options",
        )


def samplings(
    fields: GenerationFields | SamplingParams, prompt_tokens: int, context_tokens: int, max_tokens: int | None
) -> list[Sampling]:
    """How each of the n choices is sampled; Refusal where a value is out of range."""
    n = 1 if fields.n is None else fields.n
    temperature = 1.0 if fields.temperature is None else fields.temperature
    top_p = 1.0 if fields.top_p is None else fields.top_p
    if not 1 <= n <= CHOICES_MAX:
        limit = "at least 1" if n < 1 else f"at most {CHOICES_MAX}"
        raise Refusal(f"n must be {limit}, got {n}.")
    if temperature < 0:
        raise invalid_value(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if not 0 < top_p <= 1:
        raise invalid_value(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if n > 1 and temperature == 0:
        raise Refusal(f"n must be 1 when using greedy sampling, got {n}.")
    if max_tokens is not None and max_tokens < 1:
        raise invalid_value(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if max_tokens is not None and max_tokens > context_tokens:
        raise invalid_value(
            f"max_tokens={max_tokens} cannot be greater than max_model_len={context_tokens}. "
            "Please request fewer output tokens.",
            "max_tokens",
            max_tokens,
        )
    left = context_tokens - prompt_tokens
    if left < 1:
        raise errors.prompt_too_long(prompt_tokens, context_tokens)
    stop = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    if "" in stop:
        raise Refusal("stop cannot contain an empty string.")
    seed = (fields.seed or 0) if temperature > 0 else 0
    return [
        Sampling(
            max_tokens=left if max_tokens is None else min(max_tokens, left),
            # Each choice has its own seed, as otherwise all would be one.
            seed=(seed + index + _INT64) % (2 * _INT64) - _INT64,
            stop=stop,
            include_stop=fields.include_stop_str_in_output,
            ignore_eos=fields.ignore_eos,
            min_tokens=fields.min_tokens,
            script=_script(fields),
        )
        for index in range(n)
    ]


def _script(fields: GenerationFields | SamplingParams) -> list[int] | None:
    """The answer that a grammar forces, from its beginning: it does not know what was said before."""
    grammar = structured_outputs(fields)
    if grammar is None:
        return None
    document = grammar.get("json")
    if isinstance(document, str):
        try:
            document = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            raise Refusal(f"structured_outputs.json is not JSON: {error}") from error
    return prompts.json_answer(document if isinstance(document, dict) else None)


def structured_outputs(fields: GenerationFields | SamplingParams) -> dict[str, Any] | None:
    """The grammar in the form that requests in token ids carry; None for free text."""
    if isinstance(fields, SamplingParams):
        grammar = fields.structured_outputs
        return None if grammar is None else {"json": grammar.document, "json_object": grammar.json_object}
    wanted = fields.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"json_object": True}
    if wanted.json_schema is None or wanted.json_schema.document is None:
        raise Refusal(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided. "
            "(parameter=response_format)",
            param="response_format",
        )
    return {"json": wanted.json_schema.document}
