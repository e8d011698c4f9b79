"""What an engine streams: bytes of server-sent events in, events with their tokens counted out.

Pure. The engine counts its tokens too (running usage); where the two counts part, an event was lost or came twice,
and nothing that was read with it is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from shrk_contract.terms import EVENT_BYTES_MAX
from shrk_node_agent.attempts import Failed
from shrk_node_agent.engine.refusals import from_error_object

_DONE = b"[DONE]"
_PREFIX = b"data:"


class EngineSentNonsense(Exception):
    """What the engine sent is not what it should be."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around code that takes the engine's JSON for what it should be. Raises EngineSentNonsense."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineSentNonsense(f"{what} that cannot be read ({type(error).__name__})") from error


@dataclass(slots=True)
class Event:
    """One event of an engine's stream."""

    body: dict[str, Any]
    tokens: int
    #: None where the engine did not tell all of them.
    token_ids: list[int] | None


class EngineEvents:
    """Reads one streamed answer."""

    def __init__(self, *, one_choice: bool) -> None:
        """`one_choice`: the answer has a single choice, so that the engine's running count is that of all tokens."""
        self._one_choice = one_choice
        self._rest = b""
        #: Read so far.
        self.tokens = 0
        #: As last told.
        self.usage: dict[str, Any] = {}
        self.done = False
        self.failed: Failed | None = None

    def read(self, received: bytes) -> list[Event]:
        """Take in bytes as they came. Raises EngineSentNonsense."""
        *whole, self._rest = (self._rest + received).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise EngineSentNonsense(f"an event of more than {EVENT_BYTES_MAX} bytes")
        events: list[Event] = []
        with reading("an event"):
            for line in whole:
                if line.startswith(_PREFIX):
                    self._take(line[len(_PREFIX) :].strip(), events)
        return events

    def _take(self, payload: bytes, events: list[Event]) -> None:
        if payload == _DONE:
            self.done = True
            return
        body = orjson.loads(payload)
        if "error" in body:
            self.failed = from_error_object(body["error"], 0)
            return
        events.append(self._count(body))

    def _count(self, body: dict[str, Any]) -> Event:
        usage = body.get("usage")
        if usage:
            self.usage = usage
        counted = usage.get("completion_tokens") if usage and self._one_choice else None
        ids: list[int] = []
        untold = 0
        for choice in body["choices"]:
            told = choice.get("token_ids")
            if told is not None:
                ids += told
            elif counted is not None:
                untold = counted - self.tokens
            elif visible(choice):
                untold += 1
        tokens = len(ids) + untold
        self.tokens += tokens
        # An event without a token may be one of several that one token makes: the engine has counted it, we not yet.
        if counted is not None and (tokens or not body["choices"]) and (counted != self.tokens or untold < 0):
            raise EngineSentNonsense(f"{self.tokens} tokens, and says {counted}: an event was lost, or came twice")
        return Event(body, tokens, None if untold else ids)


def visible(choice: dict[str, Any]) -> bool:
    """Whether a choice of an event says anything."""
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text"))
    return any(value for name, value in delta.items() if name != "role")
