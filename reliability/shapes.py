"""What is asked: four shapes of request whose answers are longer than the positions at which faults strike."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Any

#: Faults strike before the first token and after each of these many.
POSITIONS = 65
#: Longer than that in every shape.
TOKENS_MIN = 70
#: Different questions, so that no single text carries the result.
QUESTIONS = 6

_SUBJECTS = ("the sea", "an old bridge", "winter", "a small engine", "the night sky", "a garden", "tides", "foxes")
_FIELDS = ("city", "country", "street", "colour", "season", "title", "company", "river", "island", "letter")


class Shape(StrEnum):
    """What kind of answer is asked for."""

    TEXT = "text"
    TOOL = "tool"
    JSON = "json"
    WHOLE = "whole"

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self is not Shape.WHOLE


def request(shape: Shape, model: str, question: int, seed: int) -> dict[str, Any]:
    """The body of question number `question`, always the same for the same seed."""
    dice = random.Random(f"{seed}/{shape}/{question}")
    content = f"Tell me about {dice.choice(_SUBJECTS)} and {dice.randrange(1000)} other things"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
    # Half of the questions are sampled: with a seed of their own, they have one right answer as well.
    sampled = {"temperature": 0.8, "seed": dice.randrange(2**31)}
    body |= sampled if question % 2 else {"temperature": 0}
    if shape.streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    schema = _schema(dice)
    match shape:
        case Shape.TOOL:
            body["tools"] = [{"type": "function", "function": {"name": "note", "parameters": schema}}]
        case Shape.JSON:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "note", "schema": schema}}
        case Shape.TEXT | Shape.WHOLE:
            body |= {"min_tokens": TOKENS_MIN, "max_tokens": 2 * TOKENS_MIN}
    return body


def _schema(dice: random.Random) -> dict[str, Any]:
    names = dice.sample(_FIELDS, 8)
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
