"""A digest of what a caller has been sent, by which two nodes know that they speak of the same beginning.

Equal text gives an equal digest however an engine cut it into events. The text of an answer is a sequence of
channels (reasoning, content, each tool call's arguments), in the order in which they were spoken; who is speaking,
ids, log-probabilities and usage do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

#: A delta's fields that hold text, each with its channel, in the order in which a model speaks them: one event may
#: hold the end of one and the beginning of the next. vLLM has spelt the first of them in two ways.
TEXT_FIELDS = (
    ("reasoning", "reasoning"),
    ("reasoning_content", "reasoning"),
    ("content", "content"),
    ("text", "text"),
)

#: Begins the name of a channel: no byte of UTF-8.
_MARK = b"\xff"


class TextDigest:
    """The digest so far; text is only ever added."""

    __slots__ = ("_channel", "_hash")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=8)
        self._channel = ""

    @property
    def value(self) -> int:
        """Unsigned, 64 bits. Adding more afterwards is fine."""
        return int.from_bytes(self._hash.digest(), "big")

    def add(self, channel: str, text: str) -> None:
        """Add what a channel said next; no text is nothing, and names no channel."""
        if not text:
            return
        if channel != self._channel:
            self._hash.update(b"%b%b%b" % (_MARK, channel.encode(), _MARK))
            self._channel = channel
        self._hash.update(text.encode())

    def open_call(self, index: int, name: str) -> None:
        """A tool call begins: its number in the answer and the function's name."""
        self._channel = call_channel(index)
        self._hash.update(b"%b%b %b%b" % (_MARK, self._channel.encode(), name.encode(), _MARK))

    def add_delta(self, delta: Mapping[str, Any]) -> None:
        """Add a chat's delta, or a completion's choice."""
        for channel, text in spoken(delta):
            self.add(channel, text)
        for position, call in enumerate(delta.get("tool_calls") or ()):
            index, function = call.get("index", position), call.get("function") or {}
            if name := function.get("name"):
                self.open_call(index, name)
            self.add(call_channel(index), function.get("arguments") or "")


def call_channel(index: int) -> str:
    """The channel of a tool call's arguments."""
    return f"call {index}"


def spoken(delta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(channel, text) of a delta's text; a channel that is given in both its spellings counts once."""
    found: list[tuple[str, str]] = []
    for field, channel in TEXT_FIELDS:
        text = delta.get(field)
        if text and not (found and found[-1][0] == channel):
            found.append((channel, text))
    return found


#: The digest of an answer of which nothing has been said.
NOTHING_SAID = TextDigest().value
