"""A caller's end: reads what is written, event by event, and holds each token against what had to be said."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import orjson

from simulation import tokens
from simulation.asks import Ask, Kind

#: The kind of hardware that an attempt runs on.
HardwareOf = Callable[[int], int]


class Ending(Enum):
    """How a request ended for its caller."""

    FINISHED = "finished"
    ERROR = "error"
    LEFT = "left"


class Reader:
    """One caller."""

    def __init__(self, ask: Ask, hardware_of: HardwareOf) -> None:
        self.ask = ask
        #: Bytes a second that it reads; nought: all at once.
        self.pace = ask.reads
        #: Tokens read so far.
        self.count = 0
        #: Attempts whose tokens are among them.
        self.streams: set[int] = set()
        #: Hears of each token's coming, with how many there are.
        self.read: Callable[[int], None] = lambda count: None
        self._hardware_of = hardware_of
        self._state = tokens.opening(tokens.prompt_ids(ask.prompt), ask.seed)
        self._whole = False
        self._reason = ""
        self._usage: dict[str, int] | None = None
        self._done = False
        self._rest = b""
        self.error = ""

    def take(self, written: bytes) -> None:
        """Bytes as they were written; whole events, where a loss between two halves would be seen."""
        assert not self._done, "something was written behind the end"
        *events, self._rest = (self._rest + written).split(b"\n\n")
        assert not self._rest or self.ask.kind is not Kind.STREAMED, "half an event was written"
        for event in events:
            if event == b"data: [DONE]":
                self._done = True
            elif event.startswith(b"data: {"):
                self._control(orjson.loads(event[6:]))
            elif not event.startswith(b":"):
                self._tokens(event)
        self.read(self.count)

    def _tokens(self, event: bytes) -> None:
        assert not self._reason, "tokens came behind the reason for which there are no more"
        assert not self.error, "tokens came behind an error"
        stream, first_index, said = tokens.read_event(event)
        assert first_index == self.count, f"token {first_index} came where {self.count} was due"
        hardware = self._hardware_of(stream)
        for token in said:
            assert not self._whole, "tokens came behind the last"
            due = tokens.next_token(self._state, hardware)
            assert token == due, f"token {self.count} is {token}, and had to be {due}"
            self._state = tokens.after(self._state, (token,))
            self.count += 1
            self._whole = tokens.is_last(token, self.count, self.ask.tokens_max)
        self.streams.add(stream)

    def _control(self, body: dict[str, object]) -> None:
        if "error" in body:
            assert not self.error, "an answer failed twice"
            self.error = str(body["error"]["code"])  # type: ignore[index]  # a violation where it is not there
            return
        choices = body["choices"]
        assert isinstance(choices, list)
        if choices:
            assert not self._reason, "an answer ended twice"
            self._reason = choices[0]["finish_reason"]
        if usage := body.get("usage"):
            assert self._usage is None, "usage was told twice"
            assert isinstance(usage, dict)
            self._usage = usage

    def ending(self) -> Ending:
        """Once nothing more will be written. What was written then has to be an answer, or an honest error."""
        if self.error:
            assert not self._done, "[DONE] was written behind an error"
            return Ending.ERROR
        assert not self._rest, "half an event was written last"
        assert self._whole, f"the answer ended at token {self.count}, before its end"
        if self.ask.kind is not Kind.WHOLE:
            assert self._done, "the answer ended without [DONE]"
            assert self._reason in ("stop", "length"), f"it ended for {self._reason!r}"
            self._check_usage()
        return Ending.FINISHED

    @property
    def usage_told(self) -> bool:
        """Whether it heard what it is to pay for."""
        return self._usage is not None

    def _check_usage(self) -> None:
        if self._usage is not None:
            assert self.ask.include_usage, "usage was told to somebody who did not ask"
            told = self._usage["prompt_tokens"], self._usage["completion_tokens"]
            due = len(tokens.prompt_ids(self.ask.prompt)), self.count
            assert told == due, f"usage tells {told} tokens and had to tell {due}"
