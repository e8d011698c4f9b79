"""What callers of `/v1/messages` may ask, and the chat that it comes to: vLLM answers messages as chats too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shrk_node_agent.engine.simulated.errors import Refusal
from shrk_node_agent.engine.simulated.requests import (
    CalledFunction,
    ChatRequest,
    Function,
    JsonSchema,
    Message,
    NamedFunction,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolCall,
)

#: vLLM takes no more stop sequences than these.
STOP_SEQUENCES_MAX = 4
#: The least that a caller may let a model think, in tokens: Anthropic's own bound.
THINKING_TOKENS_MIN = 1024
#: A client's note in its system prompt that changes with every request; vLLM leaves it out of the prompt.
_BILLING_NOTE = "x-anthropic-billing-header"
_TOOL_CHANGES = ("tool_addition", "tool_removal")


class FromCaller(BaseModel):
    """Read as FastAPI reads bodies, so that what is no object is refused in the same words."""

    model_config = ConfigDict(from_attributes=True)


class Block(FromCaller):
    """A part of a message; which fields are given depends on the type."""

    type: Literal[
        "text",
        "image",
        "tool_use",
        "tool_result",
        "tool_reference",
        "thinking",
        "redacted_thinking",
        "tool_addition",
        "tool_removal",
    ]
    text: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None


class Turn(FromCaller):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class OfferedTool(FromCaller):
    """A tool the model may call, with the schema of its input."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(FromCaller):
    """Whether tools may, must or must not be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.type == "tool" and not self.name:
            raise ValueError("tool_choice.name is required when type is 'tool'")
        return self


class ThinkingEnabled(FromCaller):
    """Thinking within a budget."""

    type: Literal["enabled"]
    budget_tokens: int = Field(ge=THINKING_TOKENS_MIN)


class ThinkingDisabled(FromCaller):
    """No thinking."""

    type: Literal["disabled"]


class ThinkingAdaptive(FromCaller):
    """As much thinking as the model sees fit."""

    type: Literal["adaptive"]


class OutputFormat(FromCaller):
    """JSON of a schema; `schema` on the wire."""

    document: dict[str, Any] | None = Field(default=None, alias="schema")
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(FromCaller):
    """The form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


Thinking = Annotated[ThinkingEnabled | ThinkingDisabled | ThinkingAdaptive, Field(discriminator="type")]


class CountRequest(FromCaller):
    """`/v1/messages/count_tokens`: a conversation."""

    model: str
    messages: list[Turn]
    output_config: OutputConfig | None = None
    system: str | list[Block] | None = None
    thinking: Thinking | None = None
    tool_choice: ToolChoice | None = None
    tools: list[OfferedTool] | None = None

    @field_validator("model")
    @classmethod
    def _is_named(cls, model: str) -> str:
        if not model:
            raise ValueError("Model is required")
        return model


class MessagesRequest(CountRequest):
    """`/v1/messages`: a conversation and how to answer it."""

    max_tokens: int
    stop_sequences: Annotated[list[str], Field(max_length=STOP_SEQUENCES_MAX)] | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    @field_validator("max_tokens")
    @classmethod
    def _is_positive(cls, max_tokens: int) -> int:
        if max_tokens <= 0:
            raise ValueError("max_tokens must be positive")
        return max_tokens

    @model_validator(mode="after")
    def _leaves_room_to_answer(self) -> Self:
        if isinstance(self.thinking, ThinkingEnabled) and self.thinking.budget_tokens >= self.max_tokens:
            raise ValueError("thinking.budget_tokens must be less than max_tokens")
        return self


def chat_of(asked: CountRequest, model: str) -> ChatRequest:
    """The chat that a conversation comes to; Refusal where `model`, which serves it, could not read it."""
    tools = [
        Tool(function=Function(name=tool.name, parameters={"type": "object"} | tool.input_schema))
        for tool in asked.tools or ()
    ]
    turns = [Message(role="system", content=text)] if (text := _system_text(asked.system)) else []
    for turn in asked.messages:
        turns += _messages_of(turn, model)
    chat = ChatRequest(messages=turns, response_format=_format_of(asked.output_config))
    if tools:  # Without tools vLLM passes over any choice among them.
        chat.tools = tools
        chat.tool_choice = _choice_of(asked.tool_choice, tools)
    return chat


def sampled_chat_of(asked: MessagesRequest, model: str, context_tokens: int) -> ChatRequest:
    """The chat with the way it is to be answered; Refusal of what chats themselves do not refuse."""
    if isinstance(asked.thinking, ThinkingEnabled):
        raise Refusal(
            "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser "
            "and/or --reasoning-config to use thinking_token_budget."
        )
    if asked.top_k is not None and asked.top_k < -1:
        raise Refusal(f"top_k must be 0 (disable), or at least 1, got {asked.top_k}.")
    if asked.max_tokens > context_tokens:
        raise Refusal(
            f"max_completion_tokens={asked.max_tokens} cannot be greater than max_model_len={context_tokens}. "
            f"Please request fewer output tokens. (parameter=max_completion_tokens, value={asked.max_tokens})"
        )
    chat = chat_of(asked, model)
    chat.max_tokens = asked.max_tokens
    chat.stop = asked.stop_sequences
    chat.stream = asked.stream
    chat.temperature = asked.temperature
    chat.top_p = asked.top_p
    return chat


def _choice_of(choice: ToolChoice | None, tools: Sequence[Tool]) -> Literal["none", "auto", "required"] | NamedTool:
    if choice is None or choice.type == "auto":
        return "auto"
    if choice.type == "any":
        return "required"
    if choice.type == "none":
        return "none"
    name = choice.name or ""
    if name not in {tool.function.name for tool in tools}:
        raise Refusal(f"The tool with name {name!r} is not found in the tools list.")
    return NamedTool(function=NamedFunction(name=name))


def _format_of(config: OutputConfig | None) -> ResponseFormat | None:
    if config is None or config.format is None or not config.format.document:
        return None
    schema = JsonSchema(name=config.format.type, schema=config.format.document)
    return ResponseFormat(type="json_schema", json_schema=schema)


def _system_text(content: str | Sequence[Block] | None) -> str:
    if isinstance(content, str):
        return content
    texts = [block.text for block in content or () if block.type == "text" and block.text]
    return "".join(text for text in texts if not text.startswith(_BILLING_NOTE))


def _messages_of(turn: Turn, model: str) -> list[Message]:
    """A turn as messages: each tool's result becomes one of its own, before what else the turn says."""
    for block in turn.content if isinstance(turn.content, list) else ():
        if block.type in _TOOL_CHANGES:
            raise Refusal(f"the simulated engine takes no {block.type} blocks: give the tools in `tools`")
    if turn.role == "system":
        text = _system_text(turn.content)
        return [Message(role="system", content=text)] if text and not text.startswith(_BILLING_NOTE) else []
    if isinstance(turn.content, str):
        return [Message(role=turn.role, content=turn.content)]
    results: list[Message] = []
    texts: list[str | dict[str, Any]] = []
    calls: list[ToolCall] = []
    for block in turn.content:
        if block.type == "image":
            raise _no_images(model)
        if block.type == "text" and block.text:
            texts.append(block.text)
        elif block.type == "tool_use":
            function = CalledFunction(name=block.name or "", arguments=json.dumps(block.input or {}))
            calls.append(ToolCall(id=block.id, function=function))
        elif block.type == "tool_result" and turn.role == "user":
            results.append(Message(role="tool", content=_result_text(block.content, model)))
        elif block.type == "tool_result":
            texts.append(f"Tool result: {block.content or ''}")
    if turn.role == "user" and not texts and not calls:
        return results
    return [*results, Message(role=turn.role, content=texts or None, tool_calls=calls or None)]


def _result_text(content: str | Sequence[dict[str, Any]] | None, model: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if any(part.get("type") == "image" for part in content):
        raise _no_images(model)
    return "\n".join(str(part.get("text") or "") for part in content if part.get("type") == "text")


def _no_images(model: str) -> Refusal:
    return Refusal(f"{model} is not a multimodal model")
