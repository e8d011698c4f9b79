"""Which requests can go on from token ids on another node, and which ask for structured output.

A list of what is known to be safe: a field that is not in it sends the request down the slower way, a replay that is
verified, which works for all. What depends on text before the seam (stop strings), on counts over it (penalties) or
on a grammar (structured output) starts anew in an engine that is given ids, so it cannot go on from them.
"""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]

#: Fields that mean the same to an engine that goes on from ids.
_FREE = frozenset(
    {
        "model",
        "messages",
        "prompt",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "logit_bias",
        "repetition_penalty",
        "ignore_eos",
        "stop_token_ids",
        "tools",
        "parallel_tool_calls",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "add_special_tokens",
        "truncate_prompt_tokens",
    }
)
#: Fields that do so only with these values, which are their defaults.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stop": ([], ""),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "tool_choice": ("auto", "none"),
    "response_format": ({"type": "text"},),
}
_STRUCTURED = frozenset({"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"})


def by_ids(body: Body) -> bool:
    """Whether nothing in a request keeps its answer from being continued by token ids."""
    return all(_harmless(name, value) for name, value in body.items()) and not structured(body)


def _harmless(name: str, value: object) -> bool:
    if value is None or name in _FREE:
        return True
    if name == "logprobs":
        return value is False  # 0 asks a completion for the log-probability of every token.
    return value in _HARMLESS.get(name, ())


def _strict_tools(body: Body) -> bool:
    """Whether a tool's arguments must follow its schema: an engine may keep to it with a grammar."""
    tools = body.get("tools")
    if not isinstance(tools, list):
        return False
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    return any(isinstance(function, dict) and bool(function.get("strict")) for function in functions)


def structured(body: Body) -> bool:
    """Whether the answer must follow a grammar."""
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") not in (None, "text"):
        return True
    choice = body.get("tool_choice")
    if choice == "required" or isinstance(choice, dict) or _strict_tools(body):
        return True
    return any(body.get(name) is not None for name in _STRUCTURED)
