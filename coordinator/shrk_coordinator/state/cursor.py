"""The commit cursor: which piece of an answer may reach the caller next.

One cursor per streamed request. Pieces never pass through the door of `state`; this object is the rule that
accepts them, and the relay and the simulation drive the same one:

    accept a piece only if it is the current attempt's, the next in sequence, and starts at the next token.

Before the first accepted piece any candidate attempt may speak; the first accepted piece makes its attempt
current. Whatever another attempt sends later is fenced off. When the current attempt is lost, the next one is handed
the cursor as it stands: it must begin with the token that is due.
"""

from __future__ import annotations

from enum import Enum, auto


class PieceVerdict(Enum):
    """What to do with a piece."""

    ACCEPTED = auto()
    #: From an attempt that lost, or seen before: drop it, nobody is to blame.
    STALE = auto()
    #: A gap or an overlap in the current attempt: the node broke the contract.
    BROKEN = auto()


class CommitCursor:
    """Position in one answer: current attempt, next token index and digest of what was accepted."""

    __slots__ = ("_next_sequence", "candidates", "current", "digest", "index")

    def __init__(self) -> None:
        self.candidates: set[int] = set()
        self.current: int | None = None
        #: Tokens accepted so far, |G|; the index of the next one.
        self.index = 0
        self.digest = 0
        self._next_sequence = 0

    def admit(self, stream: int) -> None:
        """Let an attempt be a candidate. Only before the first accepted piece."""
        assert self.current is None, "an answer that has begun goes on through continuation, not a new candidate"
        self.candidates.add(stream)

    def hand_on(self, stream: int) -> None:
        """The current attempt is over, and this one goes on from where the cursor stands."""
        self.current = None
        self.candidates = {stream}

    def accept(
        self, stream: int, sequence: int, first_index: int, tokens: int, digest: int, more: bool = False
    ) -> PieceVerdict:
        """Judge one piece and, where it is accepted, move on past it; `more`: its event goes on in the next."""
        due = self._next_sequence
        if stream != self.current:
            if self.current is not None or stream not in self.candidates:
                return PieceVerdict.STALE
            due = 0
        elif sequence < due:
            return PieceVerdict.STALE
        # Half an event says nothing yet: what it brings comes with its last part.
        if sequence != due or first_index != self.index or (more and tokens):
            return PieceVerdict.BROKEN
        if stream != self.current:
            self.current = stream
            self.candidates.clear()
        self._next_sequence = sequence + 1
        self.index += tokens
        if not more:
            self.digest = digest
        return PieceVerdict.ACCEPTED
