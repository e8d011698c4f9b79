"""What became of each request: its attempts, where it was continued, and why. For callers and operators.

Kept in memory for the requests under way and the last that ended; texts are never in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from shrk_contract.terms import Endpoint, ResumeMethod
from shrk_coordinator.state.events import NodeId, RequestArrived, RequestId

#: Ended requests that are remembered: minutes of a busy network, a month of a home lab. About 1 KB each, and no more
#: than 8 KB, where the most attempts all failed with the longest reasons.
ENDED_MAX = 10_000
#: A node's own words on what ended an attempt: a sentence, and a name.
REASON_LENGTH_MAX = 200
CODE_LENGTH_MAX = 64


class Outcome(StrEnum):
    """How an attempt or a request ended. A closed list."""

    UNDER_WAY = "under_way"
    FINISHED = "finished"
    FAILED = "failed"
    #: The node did not take it; never a failure.
    REJECTED = "rejected"
    #: Moved to another node before this one was lost: it drains, is silent or has stalled.
    HANDED_OVER = "handed_over"
    #: Another node, asked at the same time, spoke first.
    OUTRUN = "outrun"
    #: The caller left.
    CANCELLED = "cancelled"
    #: No node could be asked.
    REFUSED = "refused"


@dataclass(slots=True)
class AttemptEntry:
    """One attempt. Times are monotonic seconds."""

    number: int
    node_id: NodeId
    begun_at: float
    #: How it went on from what was delivered; None: from the beginning.
    resume: ResumeMethod | None
    first_piece_at: float | None = None
    #: Index of its first token: in a continued answer, where the seam is.
    first_index: int | None = None
    ended_at: float | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    #: Code and words of what ended it, where it did not finish.
    code: str = ""
    reason: str = ""


@dataclass(slots=True)
class Entry:
    """One request. Times are monotonic seconds."""

    request_id: RequestId
    key_id: str
    model: str
    endpoint: Endpoint
    streaming: bool
    arrived_at: float
    attempts: list[AttemptEntry] = field(default_factory=list)
    ended_at: float | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    #: Tokens of the answer, once it is whole.
    tokens: int | None = None


class Journal:
    """Every request under way, and the last ones that ended."""

    def __init__(self, ended_max: int = ENDED_MAX) -> None:
        self._entries: dict[RequestId, Entry] = {}
        self._ended: deque[RequestId] = deque()
        self._ended_max = ended_max

    def find(self, request_id: RequestId) -> Entry | None:
        """What is known of a request; None where it is too long ago, or never was."""
        return self._entries.get(request_id)

    def arrived(self, event: RequestArrived) -> None:
        """A request came."""
        entry = Entry(event.request_id, event.key_id, event.model, event.endpoint, event.streaming, event.now)
        self._entries[event.request_id] = entry

    def attempted(self, now: float, request_id: RequestId, number: int, node: NodeId, how: ResumeMethod | None) -> None:
        """A node is asked."""
        self._entries[request_id].attempts.append(AttemptEntry(number, node, now, how))

    def first_piece(self, now: float, request_id: RequestId, number: int, index: int) -> None:
        """An attempt's first piece goes out."""
        attempt = self._entries[request_id].attempts[number - 1]
        attempt.first_piece_at, attempt.first_index = now, index

    def attempt_ended(
        self, now: float, request_id: RequestId, number: int, outcome: Outcome, code: str = "", reason: str = ""
    ) -> None:
        """An attempt is over."""
        attempt = self._entries[request_id].attempts[number - 1]
        attempt.ended_at, attempt.outcome = now, outcome
        attempt.code, attempt.reason = _shown(code, CODE_LENGTH_MAX), _shown(reason, REASON_LENGTH_MAX)

    def ended(self, now: float, request_id: RequestId, outcome: Outcome, tokens: int | None = None) -> None:
        """A request is over; the oldest of those that ended is forgotten."""
        entry = self._entries[request_id]
        entry.ended_at, entry.outcome, entry.tokens = now, outcome, tokens
        self._ended.append(request_id)
        if len(self._ended) > self._ended_max:
            del self._entries[self._ended.popleft()]


def _shown(words: str, length_max: int) -> str:
    """A stranger's words as a line on a screen: nothing in them moves a cursor or begins another line."""
    return "".join(c if c.isprintable() else " " for c in words[:length_max])
