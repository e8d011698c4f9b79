"""What callers of `/v1/responses` may ask, as vLLM reads it: types, refusals, and the same request as a chat."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from shrk_node_agent.engine.simulated import requests
from shrk_node_agent.engine.simulated.errors import Refusal, invalid_value
from shrk_node_agent.engine.simulated.requests import ChatRequest

_NO_SUCH_TOOL = "Tool choice 'function' not found in 'tools' parameter."


class FlatTool(BaseModel):
    """A tool the model may call; the fields are those that an answer repeats."""

    name: str
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    type: Literal["function"]
    allowed_callers: list[str] | None = None
    in_background: bool | None = Field(default=None, alias="async")
    defer_loading: bool | None = None
    description: str | None = None
    output_schema: dict[str, Any] | None = None


class FlatNamedTool(BaseModel):
    """A tool choice that names one."""

    name: str
    type: Literal["function"]


class Format(BaseModel):
    """Free text or JSON."""

    name: str | None = None
    document: dict[str, Any] | None = Field(default=None, alias="schema")
    type: Literal["text", "json_object", "json_schema"]
    description: str | None = None
    strict: bool | None = None

    def told(self) -> dict[str, Any]:
        """As an answer repeats it: only a schema has more than its type."""
        return self.model_dump(by_alias=True) if self.type == "json_schema" else {"type": self.type}


class TextConfig(BaseModel):
    """How the answer's text is to be."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(BaseModel):
    """How much to think; the simulated model does not, but an answer repeats it."""

    context: str | None = None
    effort: str | None = None
    generate_summary: str | None = None
    mode: str | None = None
    summary: str | None = None


class Item(BaseModel):
    """One item of a conversation: a message, a call of a tool or a tool's output."""

    type: str = "message"
    role: str | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None


class ResponsesRequest(BaseModel):
    """`/v1/responses`."""

    input: str | list[Item]
    background: bool | None = False
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    model: str | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    reasoning: Reasoning | None = None
    request_id: str | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    stop: str | list[str] | None = None
    stream: bool | None = False
    temperature: float | None = None
    text: TextConfig | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatNamedTool = "auto"
    tools: list[FlatTool] = []
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None


async def read_response(request: web.Request) -> ResponsesRequest:
    """The request's body; Refusal where it is none."""
    body = await requests.read_object(request)
    _check_before_types(body)
    return requests.parse(body, ResponsesRequest)


def chat_of(wanted: ResponsesRequest) -> ChatRequest:
    """The same request as a chat."""
    items = [Item(role="user", content=wanted.input)] if isinstance(wanted.input, str) else wanted.input
    messages = [{"role": "system", "content": wanted.instructions}] if wanted.instructions is not None else []
    messages += [message for index, item in enumerate(items) for message in _messages_of(index, item)]
    tools = [{"function": {"name": tool.name, "parameters": tool.parameters}} for tool in wanted.tools]
    choice: Any = wanted.tool_choice
    if isinstance(choice, FlatNamedTool):
        choice = {"function": {"name": choice.name}}
    body = wanted.model_dump(
        include={"ignore_eos", "include_stop_str_in_output", "seed", "stop", "stream", "temperature", "top_p"}
    )
    body |= {"messages": messages, "max_tokens": wanted.max_output_tokens}
    if tools:
        body |= {"tools": tools, "tool_choice": choice}
    wanted_format = wanted.text.format if wanted.text else None
    if wanted_format is not None:
        schema = {"name": wanted_format.name or "answer", "schema": wanted_format.document}
        body["response_format"] = {"type": wanted_format.type, "json_schema": schema}
    return ChatRequest.model_validate(body)


def _messages_of(index: int, item: Item) -> list[dict[str, Any]]:
    """An item as messages of a chat; Refusal where it is none that this model understands."""
    if item.type == "message" and item.role is not None and item.content is not None:
        content = item.content
        if isinstance(content, list):  # What the model said itself is text like any other.
            content = [part | {"type": "text"} if part.get("type") == "output_text" else part for part in content]
        return [{"role": item.role, "content": content}]
    if item.type == "function_call" and item.name is not None and item.arguments is not None:
        function = {"name": item.name, "arguments": item.arguments}
        return [{"role": "assistant", "tool_calls": [{"id": item.call_id, "function": function}]}]
    if item.type == "function_call_output" and item.output is not None:
        return [{"role": "tool", "content": item.output}]
    if item.type == "reasoning":
        return []
    raise Refusal(
        f"input[{index}] is not understood: it must be a message with role and content, a function_call with name "
        "and arguments, a function_call_output with output, or reasoning",
        kind="Bad Request",
        param=f"body.input.{index}",
    )


def _check_before_types(body: dict[str, Any]) -> None:
    """What vLLM refuses before it looks at the types; without tools it also notes that none is to be called."""
    choice, tools = body.get("tool_choice", "auto"), body.get("tools")
    named = isinstance(choice, dict) and choice.get("type") == "function"
    if tools is None or tools == []:
        if choice == "required":
            raise _misused("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        if named:
            raise _misused(_NO_SUCH_TOOL, "tool_choice")
        if choice in ("auto", "none"):
            body["tool_choice"] = "none"
    elif named and isinstance(tools, list):
        names = [tool.get("name") for tool in tools if isinstance(tool, dict)]
        if not choice.get("name") or choice["name"] not in names:
            raise _misused(_NO_SUCH_TOOL, "tool_choice")
    if body.get("prompt") is not None:
        raise _misused("prompt template is not supported", "prompt")
    if body.get("background") and not body.get("store", True):
        raise _misused("background can only be used when `store` is true", "background")


def check_response(wanted: ResponsesRequest, context_tokens: int) -> None:
    """What vLLM refuses of a request that it could read."""
    if wanted.background:
        raise Refusal(
            "This vLLM engine does not support `store=True` and therefore does not support the background mode. "
            "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when "
            "launching the vLLM server.",
            kind="invalid_request_error",
            param="background",
        )
    if wanted.previous_response_id is not None:
        raise no_such_response(wanted.previous_response_id)
    limit = wanted.max_output_tokens
    if limit is not None and limit > context_tokens:
        raise invalid_value(
            f"max_output_tokens={limit} cannot be greater than max_model_len={context_tokens}. "
            "Please request fewer output tokens.",
            "max_output_tokens",
            limit,
        )


def _misused(message: str, param: str) -> Refusal:
    return Refusal(f"{message} (parameter={param})", param=param)


def no_such_response(response_id: str) -> Refusal:
    """An earlier response; this engine keeps none."""
    message = f"Response with id '{response_id}' not found."
    return Refusal(message, status=404, kind="invalid_request_error", param="response_id")
