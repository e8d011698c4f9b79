"""An engine's events in the coordinator's envelope: what callers see, minus what is between us and the engine.

Pure: events in; ready-to-send bytes, tokens, the ends of choices and the digest of what has been said out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from shrk_node_agent.attempts import ChoiceEnd, Envelope
from shrk_node_agent.engine.events import Event, reading, visible
from shrk_node_agent.engine.text_digest import TextDigest

#: An engine gave a choice up: it has not ended.
ABORT = "abort"


@dataclass(slots=True)
class Batch:
    """What some events amount to for the caller."""

    events: list[bytes] = field(default_factory=list)
    tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    #: False once a token came without its id: then the ids of this piece are of no use.
    ids_known: bool = True
    #: The answer's only choice ended here.
    end: ChoiceEnd | None = None

    def add(self, later: Batch) -> None:
        """Take in what came later."""
        self.events += later.events
        self.tokens += later.tokens
        self.token_ids += later.token_ids
        self.ids_known = self.ids_known and later.ids_known
        self.end = later.end or self.end

    @property
    def empty(self) -> bool:
        """Nothing to say, and nothing to count."""
        return not (self.events or self.tokens or self.end)

    def part(self) -> bytes:
        """The bytes to send."""
        return b"".join(self.events)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What of an engine's events a caller asked to see."""

    #: Token ids of the prompt and of each event.
    ids: bool = False
    #: Usage in every event (`continuous_usage_stats`).
    running_usage: bool = False
    #: The answer has exactly one choice.
    one_choice: bool = True

    @classmethod
    def of(cls, body: dict[str, Any]) -> Wishes:
        """Read off a request."""
        prompt = body.get("prompt")
        several = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
        return cls(
            ids=bool(body.get("return_token_ids")),
            running_usage=bool((body.get("stream_options") or {}).get("continuous_usage_stats")),
            one_choice=(body.get("n") or 1) == 1 and not several,
        )


class CallerEvents:
    """Writes one streamed answer."""

    def __init__(self, envelope: Envelope, wishes: Wishes, digest: TextDigest | None = None) -> None:
        """`digest` of what other nodes have delivered of this answer: then none of it is written again."""
        self._envelope = envelope
        self._wishes = wishes
        self._resumed = digest is not None
        self._digest = digest or TextDigest()
        self._ends: dict[int, ChoiceEnd] = {}
        #: Choices that have said their role, and (choice, number) of the tool calls that have been opened.
        self._roles: set[int] = set()
        self._opened: set[tuple[int, int]] = set()
        #: The prompt as the engine tokenised it, where it told, and how many tokens it counts in it.
        self.prompt_ids: list[int] = []
        self.prompt_tokens = 0

    @property
    def ends(self) -> tuple[ChoiceEnd, ...]:
        """How each choice ended, in order."""
        return tuple(self._ends[index] for index in sorted(self._ends))

    @property
    def text_digest(self) -> int:
        """Of all that has been said; 0 where there are several choices."""
        return self._digest.value if self._wishes.one_choice else 0

    def said(self, delta: dict[str, Any]) -> None:
        """Another node has delivered this of the only choice."""
        self._digest.add_delta(delta)
        self._opened |= {(self._envelope.choice_index, call["index"]) for call in _openings(delta)}

    def write(self, event: Event, batch: Batch) -> None:
        """Add one event to a batch. Raises EngineSentNonsense."""
        body = event.body
        batch.tokens += event.tokens
        batch.token_ids += event.token_ids or ()
        batch.ids_known = batch.ids_known and event.token_ids is not None
        with reading("an event"):
            self._hide_ids(body)
            self._take_usage(body)
            body["choices"] = [choice for choice in body["choices"] if self._choice(choice, batch)]
            if not body["choices"]:
                return
            body["id"] = self._envelope.id
            body["created"] = self._envelope.created
            body["model"] = self._envelope.model
            batch.events.append(b"data: %b\n\n" % orjson.dumps(body))

    def _hide_ids(self, body: dict[str, Any]) -> None:
        """vLLM tells the prompt's ids with the first event of a chat, and with a completion's first choice."""
        for place in (body, *body["choices"]):
            self.prompt_ids = place.get("prompt_token_ids") or self.prompt_ids
            if self._resumed or not self._wishes.ids:
                place.pop("prompt_token_ids", None)

    def _take_usage(self, body: dict[str, Any]) -> None:
        if counted := (body.get("usage") or {}).get("prompt_tokens"):
            self.prompt_tokens = int(counted)
        if not self._wishes.running_usage:
            body.pop("usage", None)

    def _choice(self, choice: dict[str, Any], batch: Batch) -> bool:
        """Take a choice's words and end; whether anything is left that a caller should see."""
        index = choice["index"] = choice["index"] + self._envelope.choice_index
        ids = choice.get("token_ids") if self._wishes.ids else choice.pop("token_ids", None)
        delta = choice.get("delta")
        if delta is not None:
            self._drop_what_was_said(delta, index)
            if self._envelope.tool_call_prefix:
                name_tool_calls(delta, self._envelope.tool_call_prefix, index)
        if self._wishes.one_choice:
            self._digest.add_delta(choice if delta is None else delta)
        ended = bool(choice.get("finish_reason"))
        if ended:
            self._end(choice, batch)
        # The coordinator says how it ended; what is left of the event may be its last words, or its last ids.
        worth_sending = visible(choice) or bool(choice.get("logprobs")) or bool(ids and self._wishes.ids)
        return worth_sending or not (ended or self._resumed)

    def _end(self, choice: dict[str, Any], batch: Batch) -> None:
        index = choice["index"]
        stop = orjson.dumps(choice.pop("stop_reason")) if "stop_reason" in choice else b""
        end = self._ends[index] = ChoiceEnd(index, choice["finish_reason"], stop)
        if self._wishes.one_choice and end.finish_reason != ABORT:
            batch.end = end
        choice["finish_reason"] = None

    def _drop_what_was_said(self, delta: dict[str, Any], index: int) -> None:
        """A role is said once, and a tool call opened once, whichever engine says it again."""
        if "role" in delta and (self._resumed or index in self._roles):
            del delta["role"]
        elif "role" in delta:
            self._roles.add(index)
        if delta.get("tool_calls"):
            for call in _openings(delta):
                if (index, call["index"]) in self._opened:
                    forget_opening(call)
                self._opened.add((index, call["index"]))


def _openings(delta: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls that begin here; all of them have an index."""
    calls = delta.get("tool_calls") or ()
    for position, call in enumerate(calls):
        call.setdefault("index", position)
    return [call for call in calls if (call.get("function") or {}).get("name")]


def forget_opening(call: dict[str, Any]) -> None:
    """Leave of a tool call that begins only what it says beyond that."""
    call.pop("id", None)
    call.pop("type", None)
    del call["function"]["name"]


def name_tool_calls(message: dict[str, Any], prefix: str, choice: int) -> None:
    """Give tool calls the coordinator's ids, equal over all attempts of a request."""
    for position, call in enumerate(message.get("tool_calls") or ()):
        if call.get("id"):
            call["id"] = f"{prefix}{choice}_{call.get('index', position)}"
