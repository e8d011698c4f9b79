"""What the name of a model tells of its size, as publishers write it: ORG/Qwen2.5-7B-Instruct-AWQ, gemma-3-270m."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: 0.5B, 7b, 270M, 8x7B, and E4B of those that count what is used at once; not the 3 of "Llama-3.2-1B", nor "128k".
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?E?(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z0-9])")
#: The first that is found counts, so that the word for a method comes before one for its width.
_QUANTISATIONS = (
    ("awq", re.compile(r"awq", re.IGNORECASE)),
    ("gptq", re.compile(r"gptq", re.IGNORECASE)),
    ("nvfp4", re.compile(r"nvfp4", re.IGNORECASE)),
    ("mxfp4", re.compile(r"mxfp4|gpt-oss", re.IGNORECASE)),
    ("int4", re.compile(r"int4|w4a16|4bit|bnb-4", re.IGNORECASE)),
    ("int8", re.compile(r"int8|w8a8|w8a16|8bit", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class Named:
    """As far as a name tells it."""

    #: Billions; None: it does not.
    parameters: float | None = None
    #: One of `fit.WEIGHT_BYTES`; empty: two bytes a weight.
    quantisation: str = ""


def named(source: str) -> Named:
    """What the last part of a Hugging Face id, or of a folder's path, tells. Of several sizes the largest counts."""
    name = source.rstrip("/").rpartition("/")[2]
    sizes = [
        int(experts or 1) * float(count) * (1.0 if unit in "Bb" else 1e-3)
        for experts, count, unit in _SIZE.findall(name)
    ]
    quantisation = next((word for word, pattern in _QUANTISATIONS if pattern.search(name)), "")
    return Named(max(sizes, default=None), quantisation)
