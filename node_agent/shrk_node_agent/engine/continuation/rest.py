"""What is left to generate of an answer: the request for its rest, made from the request for all of it. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from shrk_node_agent.attempts import Resume
from shrk_node_agent.engine.caller_events import Wishes

#: Each acts on the whole answer, and an engine that is given the first part of it as a prompt would forget that part.
_SPANS_THE_SEAM = ("structured_outputs", "stop", "logprobs", "prompt_logprobs", "bad_words")
_PENALTIES = ("presence_penalty", "frequency_penalty")
#: What a rendered request means that names no limit: vLLM leaves out what equals its own default, and `generate` would
#: then take the whole context.
_MAX_TOKENS_DEFAULT = 16
#: Draws noise by position: an equal seed goes on where it was.
_BY_POSITION = "v2"


def why_not(body: dict[str, Any]) -> str:
    """Why the rest of the answer to this request cannot be had by ids; empty where nothing is known against it."""
    if (body.get("response_format") or {}).get("type", "text") != "text":
        return "its format is enforced by a grammar, which would begin anew"
    if body.get("stop"):
        return "it has stop strings, which may span the seam"
    if body.get("logprobs") is not None and body["logprobs"] is not False:
        return "it has log-probabilities"
    if not Wishes.of(body).one_choice:
        return "it has several choices"
    return ""


def why_not_rendered(rendered: dict[str, Any]) -> str:
    """The same of the engine's own understanding of the request."""
    params = rendered["sampling_params"]
    if rendered.get("features") or rendered.get("content_parts"):
        return "its prompt is not of text alone"
    spanning = [name for name in _SPANS_THE_SEAM if params.get(name) not in (None, [])]
    spanning += [name for name in _PENALTIES if params.get(name)]
    return f"{spanning[0]!r} acts across the seam" if spanning else ""


def tokens_left(rendered: dict[str, Any], resume: Resume) -> int | None:
    """How many more tokens the answer may have; None where the engine says no limit."""
    limit = rendered["sampling_params"].get("max_tokens", _MAX_TOKENS_DEFAULT)
    return None if limit is None else int(limit) - len(resume.delivered_ids)


def rest_of(rendered: dict[str, Any], resume: Resume, runner: str) -> dict[str, Any]:
    """The request for what follows the delivered ids; `runner` as in the engine's pin."""
    delivered = len(resume.delivered_ids)
    params = dict(rendered["sampling_params"])
    if (left := tokens_left(rendered, resume)) is not None:
        params["max_tokens"] = left
    if params.get("min_tokens"):
        params["min_tokens"] = max(0, params["min_tokens"] - delivered)
    if params.get("seed") is not None and runner != _BY_POSITION:
        params["seed"] = seed_after(params["seed"], delivered)
    rest = {name: value for name, value in rendered.items() if name != "request_id"}
    return rest | {
        # The ids of the first engine, whatever this one would have made of the request: a template may tell the date.
        "token_ids": [*resume.prompt_ids, *resume.delivered_ids],
        "token_offsets": None,
        "sampling_params": params,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


def seed_after(seed: int, delivered: int) -> int:
    """For an engine that restarts its noise with every request: another seed at every seam, 0 to 2**63 − 1.

    With the same one it would repeat the noise that the beginning of the answer was drawn with.
    """
    digest = blake2b(f"{seed} {delivered}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
