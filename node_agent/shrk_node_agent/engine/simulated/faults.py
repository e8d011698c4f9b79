"""Faults a user asks for: what a simulated engine can be made to do wrong, and when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: A prompt that holds this text kills an engine armed with `query-of-death`.
QUERY_OF_DEATH = "query of death"
#: How long each step takes under `slow`.
SLOW_STEP_SECONDS = 1.0


class Kind(StrEnum):
    """What goes wrong. A closed list, the words of the flag and of the control route."""

    #: The process is killed.
    CRASH = "crash"
    #: No answer goes on; the server still serves, as vLLM's does when its core hangs.
    HANG = "hang"
    #: Steps take SLOW_STEP_SECONDS.
    SLOW = "slow"
    #: The answer ends well, but early; at token 0 it is empty.
    EMPTY_FINISH = "empty-finish"
    #: One event of the answer is cut off, and the stream goes on.
    BAD_CHUNK = "bad-chunk"
    #: One event of a stream is written twice; a token that makes no event has none to repeat.
    REPEAT_CHUNK = "repeat-chunk"
    #: The process is killed by a prompt that holds QUERY_OF_DEATH.
    QUERY_OF_DEATH = "query-of-death"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, due when an answer has this many tokens."""

    kind: Kind
    token: int = 0
    #: How many answers it strikes, of the faults that strike answers one by one; None is all of them.
    times: int | None = None

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read KIND[@TOKEN]; ValueError says what is allowed."""
        kind, _, token = text.partition("@")
        if kind not in set(Kind) or (token and not token.isdecimal()):
            kinds = ", ".join(Kind)
            raise ValueError(f"{text!r} is not KIND[@TOKEN] with KIND one of {kinds} and TOKEN a whole number")
        return cls(Kind(kind), int(token or 0))


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

    def due(self, kind: Kind, produced: int) -> bool:
        """Whether an answer with this many tokens has come to where the fault strikes."""
        fault = self._armed.get(kind)
        return fault is not None and produced >= fault.token

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
                self._armed[kind] = Fault(kind, fault.token, left)
        return True
