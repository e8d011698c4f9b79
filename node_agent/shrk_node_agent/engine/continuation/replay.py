"""Replays an answer in silence until it has said what another node delivered of it, and speaks from there.

Pure: a filter over an engine's events. What was delivered is known by its digest and by its number of tokens alone;
so the replay's text is followed character by character until the digests are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shrk_node_agent.attempts import Resume
from shrk_node_agent.engine.caller_events import forget_opening
from shrk_node_agent.engine.events import Event, reading
from shrk_node_agent.engine.text_digest import TEXT_FIELDS, TextDigest, call_channel

#: One engine may show a text some tokens later than another did, where their steps fall differently: a parser holds
#: back what may be the beginning of a tag. The longest of vLLM's tags are fewer tokens than this.
SLACK_TOKENS_MAX = 16


class Diverged(Exception):
    """The replay says something else than was delivered."""


@dataclass(slots=True)
class _Unsaid:
    """Tokens beyond those delivered, of which the text has been delivered all the same."""

    tokens: int = 0
    token_ids: list[int] | None = field(default_factory=list)
    logprobs: dict[str, Any] | None = None


class Seam:
    """Follows one replay of a single choice."""

    def __init__(self, resume: Resume) -> None:
        self._delivered = resume.delivered_tokens
        self._wanted = resume.text_digest
        #: Of what has been replayed; at the seam, of what was delivered.
        self.digest = TextDigest()
        self._found = self.digest.value == self._wanted
        self._tokens = 0
        self._unsaid = _Unsaid()

    def take(self, event: Event) -> Event:
        """What is new in an event, which may be nothing. Raises Diverged and EngineSentNonsense."""
        before, self._tokens = self._tokens, self._tokens + event.tokens
        new = self._tokens - max(before, self._delivered)
        ended = False
        with reading("an event"):
            for choice in event.body["choices"]:
                self._keep_tokens(choice, max(0, new))
                delta = choice.get("delta")
                self._keep_text(choice if delta is None else delta)
                ended = ended or bool(choice.get("finish_reason"))
            event.tokens = max(0, new)
            event.token_ids = _last(event.token_ids, event.tokens)
        if self._found:
            self._add_unsaid(event)
        elif ended:
            raise Diverged("it ended before it had said what was delivered")
        elif self._tokens > self._delivered + SLACK_TOKENS_MAX:
            raise Diverged(f"{self._tokens} tokens of it did not say what {self._delivered} delivered ones had")
        else:
            self._put_off(event)
        return event

    # --- text ----------------------------------------------------------------------------------------

    def _keep_text(self, delta: dict[str, Any]) -> None:
        """Leave of a delta what comes after the seam."""
        if self._found:
            return
        rests: dict[str, str] = {}
        for name, channel in TEXT_FIELDS:
            if text := delta.get(name):
                # Both spellings of one channel say the same: the second is cut where the first was.
                delta[name] = rests[channel] = rests[channel] if channel in rests else self._follow(channel, text)
        calls = delta.get("tool_calls") or ()
        for position, call in enumerate(calls):
            self._keep_call(call, call.setdefault("index", position))
        if calls:
            delta["tool_calls"] = [call for call in calls if any((call.get("function") or {}).values())]

    def _keep_call(self, call: dict[str, Any], index: int) -> None:
        function = call.get("function") or {}
        name = function.get("name")
        if name and not self._found:
            forget_opening(call)
            self.digest.open_call(index, name)
            self._look()
        if arguments := function.get("arguments"):
            function["arguments"] = self._follow(call_channel(index), arguments)

    def _follow(self, channel: str, text: str) -> str:
        """What of a text comes after the seam."""
        if self._found:
            return text
        for position, character in enumerate(text, start=1):
            self.digest.add(channel, character)
            self._look()
            if self._found:
                return text[position:]
        return ""

    def _look(self) -> None:
        self._found = self.digest.value == self._wanted

    # --- tokens --------------------------------------------------------------------------------------

    @staticmethod
    def _keep_tokens(choice: dict[str, Any], new: int) -> None:
        """Leave of what an event tells token by token the new ones' part."""
        if choice.get("token_ids"):
            choice["token_ids"] = _last(choice["token_ids"], new)
        if choice.get("logprobs"):
            choice["logprobs"] = {name: _last(told, new) for name, told in choice["logprobs"].items()} if new else None

    def _put_off(self, event: Event) -> None:
        unsaid = self._unsaid
        unsaid.tokens += event.tokens
        unsaid.token_ids = _both(unsaid.token_ids, event.token_ids)
        for choice in event.body["choices"]:
            unsaid.logprobs = _both_logprobs(unsaid.logprobs, choice.get("logprobs"))
            choice["token_ids"], choice["logprobs"] = [], None
        event.tokens, event.token_ids = 0, []

    def _add_unsaid(self, event: Event) -> None:
        unsaid, self._unsaid = self._unsaid, _Unsaid()
        if not unsaid.tokens:
            return
        event.tokens += unsaid.tokens
        event.token_ids = _both(unsaid.token_ids, event.token_ids)
        for choice in event.body["choices"]:
            choice["token_ids"] = event.token_ids
            choice["logprobs"] = _both_logprobs(unsaid.logprobs, choice.get("logprobs"))


def _last(told: Any, count: int) -> Any:
    """The last `count` of what is told token by token; anything else as it is."""
    return told[len(told) - count :] if isinstance(told, list) else told


def _both(first: list[int] | None, second: list[int] | None) -> list[int] | None:
    return None if first is None or second is None else first + second


def _both_logprobs(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    if not first or not second:
        return first or second
    return {name: told + second[name] if isinstance(told, list) else told for name, told in first.items()}
