"""An engine's events in the coordinator's envelope: what callers see, minus what is between us and the engine.

Pure: bytes of server-sent events in; ready-to-send bytes, token ids and the ends of choices out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from shrk_node_agent.attempts import ChoiceEnd, Envelope, Failed
from shrk_node_agent.engine.refusals import from_error_object

_DONE = b"[DONE]"
_PREFIX = b"data:"
#: One event of an engine; vLLM's largest are log-probabilities, some tens of kilobytes.
EVENT_BYTES_MAX = 8 * 1024 * 1024


class EngineSentNonsense(Exception):
    """The engine's stream is not what it should be."""


@dataclass(slots=True)
class Batch:
    """What one read of the engine's stream amounts to."""

    events: list[bytes] = field(default_factory=list)
    tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    #: False once a token came without its id: then the ids of this piece are of no use.
    ids_known: bool = True

    def part(self) -> bytes:
        """The bytes to send."""
        return b"".join(self.events)


class EventReader:
    """Reads one streamed answer."""

    def __init__(self, envelope: Envelope, caller_wants_ids: bool, caller_wants_usage: bool) -> None:
        """`caller_wants_usage`: running usage in every event (`continuous_usage_stats`)."""
        self._envelope = envelope
        self._caller_wants_ids = caller_wants_ids
        self._caller_wants_usage = caller_wants_usage
        self._rest = b""
        self._ends: dict[int, ChoiceEnd] = {}
        self.usage: dict[str, Any] = {}
        self.done = False
        self.failed: Failed | None = None

    @property
    def ends(self) -> tuple[ChoiceEnd, ...]:
        """How each choice ended, in order."""
        return tuple(self._ends[index] for index in sorted(self._ends))

    def read(self, received: bytes) -> Batch:
        """Take in bytes as they came. Raises EngineSentNonsense."""
        *whole, self._rest = (self._rest + received).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise EngineSentNonsense(f"an event of more than {EVENT_BYTES_MAX} bytes")
        batch = Batch()
        for event in whole:
            if event.startswith(_PREFIX):
                self._event(event[len(_PREFIX) :].strip(), batch)
        return batch

    def _event(self, payload: bytes, batch: Batch) -> None:
        if payload == _DONE:
            self.done = True
            return
        try:
            event = orjson.loads(payload)
            if "error" in event:
                self.failed = from_error_object(event["error"], 0)
                return
            self._take(event, batch)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise EngineSentNonsense(f"an event that cannot be read ({type(error).__name__})") from error

    def _take(self, event: dict[str, Any], batch: Batch) -> None:
        if not self._caller_wants_ids:
            event.pop("prompt_token_ids", None)
        usage = event.get("usage")
        if usage:
            self.usage = usage
        if not self._caller_wants_usage:
            event.pop("usage", None)
        kept = [c for c in event["choices"] if self._choice(c, batch)]
        if not kept:
            return
        event["choices"] = kept
        event["id"] = self._envelope.id
        event["created"] = self._envelope.created
        event["model"] = self._envelope.model
        batch.events.append(b"data: %b\n\n" % orjson.dumps(event))

    def _choice(self, choice: dict[str, Any], batch: Batch) -> bool:
        """Take a choice's tokens and end; whether anything is left that a caller should see."""
        ids = choice.get("token_ids")
        if not self._caller_wants_ids:
            choice.pop("token_ids", None)
            choice.pop("prompt_token_ids", None)
        delta = choice.get("delta")
        content = delta if delta is not None else {"text": choice.get("text")}
        visible = any(value for name, value in content.items() if name != "role")
        if ids:
            batch.tokens += len(ids)
            batch.token_ids += ids
        elif visible:
            batch.tokens += 1
            batch.ids_known = False
        if delta is not None and self._envelope.tool_call_prefix:
            name_tool_calls(delta, self._envelope.tool_call_prefix, choice["index"])
        finish_reason = choice.get("finish_reason")
        if not finish_reason:
            return True
        stop = orjson.dumps(choice.pop("stop_reason")) if "stop_reason" in choice else b""
        self._ends[choice["index"]] = ChoiceEnd(choice["index"], finish_reason, stop)
        choice["finish_reason"] = None
        # The coordinator says how it ended; what is left of the event may be its last words, or its last ids.
        return visible or bool(choice.get("logprobs")) or bool(ids and self._caller_wants_ids)


def name_tool_calls(message: dict[str, Any], prefix: str, choice: int) -> None:
    """Give tool calls the coordinator's ids, equal over all attempts of a request."""
    for position, call in enumerate(message.get("tool_calls") or ()):
        if call.get("id"):
            call["id"] = f"{prefix}{choice}_{call.get('index', position)}"
