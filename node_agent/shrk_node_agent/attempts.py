"""Where the link and the engine meet without knowing each other: an order, its credit, and where answers go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shrk_contract.terms import Endpoint, Fault, Rejection, ResumeMethod

#: Without any new credit: the coordinator cancels an attempt whose caller reads nothing for a minute. Ten times that
#: means that it has forgotten the attempt, which holds a slot of the engine.
CREDIT_SECONDS_MAX = 600.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a caller sees as identity: written into every event in place of the engine's own."""

    id: str
    created: int
    model: str
    #: Tool call n of choice c gets the id `<tool_call_prefix><c>_<n>`; empty keeps the engine's.
    tool_call_prefix: str
    #: Added to the engine's own index of a choice.
    choice_index: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """What other nodes delivered of this answer before they were lost."""

    method: ResumeMethod
    #: Tokens delivered; the first new one has this index.
    delivered_tokens: int
    #: Digest of all text delivered (`engine.text_digest`).
    text_digest: int
    #: Given for BY_IDS only.
    prompt_ids: Sequence[int] = ()
    delivered_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt, as a coordinator asked for it."""

    endpoint: Endpoint
    model: str
    streaming: bool
    envelope: Envelope
    body: bytes
    #: For the engine where the body names none.
    seed: int | None = None
    resume: Resume | None = None
    #: Left to the whole request when it was ordered; None: no end.
    deadline_seconds: float | None = None
    #: The prompt's ids and every piece's are wanted.
    tell_ids: bool = False


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """How one choice ended, in the engine's words."""

    index: int
    finish_reason: str
    #: JSON; empty where the engine gave none.
    stop_reason_json: bytes = b""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer: whole events, or a whole answer."""

    tokens: int
    #: Empty where they are not wanted, or the engine did not tell all of them.
    token_ids: Sequence[int]
    part: bytes
    #: Digest of all text up to and including this part; 0 where nothing can be continued.
    text_digest: int = 0
    #: With the last token of a streamed answer.
    end: ChoiceEnd | None = None
    #: With `end`: the prompt's, as the engine counts them.
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole."""

    choices: tuple[ChoiceEnd, ...]
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer will not become whole."""

    fault: Fault
    message: str
    http_status: int = 0
    code: str = ""
    type: str = ""
    param: str = ""


class AttemptSink(Protocol):
    """Takes an answer to the coordinator. Exactly one of `finish`, `fail` and `reject` ends it."""

    def accept(self) -> None:
        """The attempt is taken on."""
        ...

    def reject(self, reason: Rejection, message: str) -> None:
        """The attempt is not taken on."""
        ...

    def prompt(self, token_ids: Sequence[int]) -> None:
        """The prompt as the engine tokenised it; before the first piece, and only where ids are wanted."""
        ...

    async def piece(self, piece: Piece) -> None:
        """Send a part of the answer; returns when there was credit for it. Raises CreditWithheld."""
        ...

    def finish(self, finished: Finished) -> None:
        """The answer is whole."""
        ...

    def fail(self, failed: Failed) -> None:
        """The answer will not become whole."""
        ...


class CreditWithheld(Exception):
    """The coordinator gave no more credit, and did not cancel either."""


class Credit:
    """Bytes that may be sent before the coordinator must give more."""

    def __init__(self, size: int, seconds_max: float = CREDIT_SECONDS_MAX) -> None:
        self._left = size
        self._seconds_max = seconds_max
        self._more = asyncio.Event()

    def give(self, size: int) -> None:
        """The coordinator passed bytes on, and takes as many more."""
        self._left += size
        self._more.set()

    async def spend(self, size: int) -> None:
        """Return once there is credit for `size` bytes, and use it. At no credit the engine is not read on.

        Raises CreditWithheld where none comes for too long.
        """
        while self._left < size:
            self._more.clear()
            try:
                async with asyncio.timeout(self._seconds_max):
                    await self._more.wait()
            except TimeoutError as error:
                raise CreditWithheld(f"no credit within {self._seconds_max:g} s") from error
        self._left -= size
