"""`GET /v1/requests/{id}`: what became of a request, attempt by attempt, for the key that made it and for admins.

Nodes appear under their pseudonyms, texts not at all.
"""

from __future__ import annotations

import re
from typing import Any

from shrk_coordinator.data_plane.errors import request_name
from shrk_coordinator.errors import request_not_found
from shrk_coordinator.records import ApiKey, Scope
from shrk_coordinator.state.journal import AttemptEntry, Entry, Journal, Outcome
from shrk_coordinator.streams import NodeNames

_NAME = re.compile(r"(?:req_|chatcmpl-|cmpl-|embd-)?([0-9a-f]{32})")
#: Answers of one request, each with a journal entry of its own; ids of other requests are random.
ANSWERS_MAX = 128


def find(journal: Journal, name: str, key: ApiKey) -> list[Entry]:
    """The entries of one request, one for each of its answers. Raises ApiError.

    Somebody else's request is told like one that never was. `name`: with any of the prefixes that answers carry.
    """
    found = _NAME.fullmatch(name)
    entries: list[Entry] = []
    if found is not None:
        first = int(found[1], 16)
        for offset in range(ANSWERS_MAX):
            entry = journal.find(((first + offset) % (1 << 128)).to_bytes(16, "big"))
            if entry is None or (key.scope is not Scope.ADMIN and entry.key_id != key.id):
                break
            entries.append(entry)
    if not entries:
        raise request_not_found(name)
    return entries


def document(entries: list[Entry], now: float, now_unix: float, node_name: NodeNames) -> dict[str, Any]:
    """What callers see. `now`: monotonic seconds, as the entries' own times; `now_unix`: the same moment since 1970."""
    first = entries[0]
    running = [entry for entry in entries if entry.ended_at is None]
    worst = next((entry for entry in entries if entry.outcome is not Outcome.FINISHED), first)
    ended = max((entry.ended_at or now for entry in entries), default=now)
    attempts = [
        _attempt(entry, attempt, choice, node_name)
        for choice, entry in enumerate(entries)
        for attempt in entry.attempts
    ]
    return {
        "id": request_name(first.request_id),
        "object": "request",
        "model": first.model,
        "endpoint": str(first.endpoint),
        "streaming": first.streaming,
        "status": str(Outcome.UNDER_WAY if running else worst.outcome),
        "created": round(now_unix - (now - first.arrived_at), 3),
        "duration_ms": _ms(ended - first.arrived_at),
        "tokens": None if running else sum(entry.tokens or 0 for entry in entries),
        "answers": len(entries),
        "continuations": sum(attempt["resume"] is not None for attempt in attempts),
        "attempts": attempts,
    }


def _attempt(entry: Entry, attempt: AttemptEntry, choice: int, node_name: NodeNames) -> dict[str, Any]:
    def since(moment: float | None) -> int | None:
        return None if moment is None else _ms(moment - entry.arrived_at)

    return {
        "choice": choice,
        "number": attempt.number,
        "node": node_name(attempt.node_id),
        "resume": None if attempt.resume is None else str(attempt.resume),
        # Where a continued answer went on: the index of the first token that this node gave.
        "seam": attempt.first_index if attempt.resume is not None else None,
        "begun_ms": since(attempt.begun_at),
        "first_piece_ms": since(attempt.first_piece_at),
        "ended_ms": since(attempt.ended_at),
        "outcome": str(attempt.outcome),
        "code": attempt.code,
        "reason": attempt.reason,
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
