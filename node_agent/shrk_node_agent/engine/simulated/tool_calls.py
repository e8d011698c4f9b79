"""Reads tool calls out of the model's text, whole or piece by piece, as vLLM's `hermes` parser does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_MARK = "<tool_call>"
_END_MARK = "</tool_call>"
_NAME = re.compile(r'<tool_call>\n\{"name": ("(?:[^"\\]|\\.)*")')
_ARGUMENTS = ', "arguments": '


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece of text turned out to be; exactly one field is given."""

    content: str | None = None
    #: A call begins: the function's name.
    name: str | None = None
    #: Of the call's arguments, in JSON.
    arguments: str | None = None


class ToolCallReader:
    """One answer, fed piece by piece. It either opens with a call or is plain content."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "opening"
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> list[Piece]:
        """What the next piece of text says."""
        if self._state == "closed" or not text:
            return []
        if self._state == "arguments":
            return self._arguments(text)
        self._held += text
        if self._state == "opening":
            shorter = min(len(self._held), len(_MARK))
            if self._held[:shorter] != _MARK[:shorter]:
                self._state = "content"
            elif shorter == len(_MARK):
                self._state = "head"
        if self._state == "content":
            return self._flush()
        pieces: list[Piece] = []
        if self._state == "head" and (name := _NAME.match(self._held)):
            pieces.append(Piece(name=json.loads(name[1])))
            self._held = self._held[name.end() :]
            self._state = "between"
        if self._state == "between" and self._held.startswith(_ARGUMENTS):
            rest, self._held = self._held[len(_ARGUMENTS) :], ""
            self._state = "arguments"
            pieces += self._arguments(rest)
        return pieces

    def end(self) -> list[Piece]:
        """The answer has ended: a call that never got its name was content after all."""
        return self._flush() if self._state in ("opening", "head") else []

    def _flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [Piece(content=held)] if held else []

    def _arguments(self, text: str) -> list[Piece]:
        for index, character in enumerate(text):
            self._follow(character)
            if self._depth == 0 and not self._in_string:
                self._state = "closed"
                return [Piece(arguments=text[: index + 1])]
        return [Piece(arguments=text)] if text else []

    def _follow(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1


@dataclass(frozen=True, slots=True)
class Call:
    """A whole tool call."""

    name: str
    #: A JSON document, as text.
    arguments: str


def read_whole(text: str) -> tuple[str | None, Call | None]:
    """(content, call) of a whole answer: one of the two."""
    reader = ToolCallReader()
    pieces = reader.feed(text) + reader.end()
    name = next((piece.name for piece in pieces if piece.name is not None), None)
    if name is None:
        return text, None
    return None, Call(name, "".join(piece.arguments or "" for piece in pieces))


def whole_call(text: str) -> Call | None:
    """The call that a whole answer makes; one that was cut short is text."""
    _, call = read_whole(text)
    return call if call and is_json(text.removeprefix(_MARK).partition(_END_MARK)[0]) else None


def is_json(text: str) -> bool:
    """Whether a text is a JSON document, whole."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
