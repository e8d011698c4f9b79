"""Faults a user asks for: what a simulated engine can be made to do wrong, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

#: A prompt that holds this text crashes an engine armed with `query-of-death` that names no other.
QUERY_OF_DEATH = "query of death"
#: How long each step takes under a `slow` that names no factor.
SLOW_STEP_SECONDS = 1.0


class Kind(StrEnum):
    """What goes wrong. A closed list, the words of the flag and of the control route."""

    #: The process ends by SIGSEGV.
    CRASH = "crash"
    #: No answer goes on; the server still serves, as vLLM's does when its core hangs.
    HANG = "hang"
    #: Steps take SLOW_STEP_SECONDS; or, with a factor, as many times as long as they did, and so do first tokens where
    #: it strikes at token 0. An engine that is as fast as the machine has no pace that a factor could slow.
    SLOW = "slow"
    #: The answer ends well, but early; at token 0 it is empty.
    EMPTY_FINISH = "empty-finish"
    #: One event of the answer is cut off, and the stream goes on.
    BAD_CHUNK = "bad-chunk"
    #: One event of a stream is written twice; a token that makes no event has none to repeat.
    REPEAT_CHUNK = "repeat-chunk"
    #: The process ends by SIGSEGV, before the first token, of a prompt that holds a text: QUERY_OF_DEATH, or another.
    QUERY_OF_DEATH = "query-of-death"
    #: Whoever asks for an answer is told HTTP 500 at once, and nothing is generated; at token 0 only.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, due when an answer has this many tokens."""

    kind: Kind
    token: int = 0
    #: How many answers it strikes, of the faults that strike answers one by one; None is all of them.
    times: int | None = None
    #: Of SLOW; at least 1.
    factor: float | None = None
    #: Of QUERY_OF_DEATH; not empty.
    text: str | None = None

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read KIND[@TOKEN], slow[@TOKEN]=FACTOR or query-of-death=TEXT; ValueError says what is allowed."""
        what, given, value = text.partition("=")
        kind, _, token = what.partition("@")
        if kind not in set(Kind) or (token and not token.isdecimal()):
            kinds = ", ".join(Kind)
            raise ValueError(f"{text!r} is not KIND[@TOKEN] with KIND one of {kinds} and TOKEN a whole number")
        fault = cls(Kind(kind), int(token or 0))
        if not given:
            return fault
        if fault.kind is Kind.QUERY_OF_DEATH and value:
            return replace(fault, text=value)
        if fault.kind is Kind.SLOW and (factor := _factor(value)) is not None:
            return replace(fault, factor=factor)
        raise ValueError(f"{text!r}: only slow=FACTOR, from 1, and query-of-death=TEXT take a value")


def _factor(text: str) -> float | None:
    try:
        factor = float(text)
    except ValueError:
        return None
    return factor if 1 <= factor < float("inf") else None


class Faults:
    """The armed faults, at most one of each kind; falsy when none is armed."""

    def __init__(self) -> None:
        self._armed: dict[Kind, Fault] = {}

    def __bool__(self) -> bool:
        return bool(self._armed)

    def arm(self, fault: Fault) -> None:
        """From now on; another fault of the same kind is replaced."""
        self._armed[fault.kind] = fault

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def armed(self) -> list[Fault]:
        """In the order they were armed."""
        return list(self._armed.values())

    def due(self, kind: Kind, produced: int) -> Fault | None:
        """The fault, where an answer with this many tokens has come to where it strikes."""
        fault = self._armed.get(kind)
        return fault if fault is not None and produced >= fault.token else None

    def strike(self, kind: Kind, produced: int) -> bool:
        """True exactly where the fault strikes this answer; counts it."""
        fault = self._armed.get(kind)
        if fault is None or produced != fault.token:
            return False
        if fault.times is not None:
            left = fault.times - 1
            if left <= 0:
                del self._armed[kind]
            else:
                self._armed[kind] = replace(fault, times=left)
        return True
