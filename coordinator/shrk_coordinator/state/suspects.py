"""Queries of death: requests that crash the engine that reads them are stopped before they have crashed them all.

Blamed is a request that had no token yet when its engine crashed by itself. A blamed one is a suspect: of all suspects
of a model one runs at a time, on another node where there is one, so that the next crash tells which it was. A token
clears it; a second crash convicts it for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_coordinator.state.events import NodeId, RequestId
from shrk_coordinator.state.lives import EngineLife

Digest = bytes

#: How long a request that crashed two engines is refused, and how long one that crashed one is a suspect.
POISONED_SECONDS = 600.0
#: Engines that may be lost to it.
CRASHES_MAX = 2
#: Beyond this the oldest are forgotten: each costs somebody an engine, so that nobody has thousands of them to spare.
SUSPECTS_MAX = 10_000


@dataclass(slots=True)
class _Record:
    until: float
    crashed: dict[EngineLife, NodeId] = field(default_factory=dict)


class Suspects:
    """All requests that engines crashed of, by digest."""

    def __init__(self) -> None:
        self._records: dict[Digest, _Record] = {}
        #: Of each model the suspect that runs now.
        self._on_trial: dict[str, RequestId] = {}

    def blame(self, now: float, digest: Digest, node: NodeId, life: EngineLife) -> None:
        """An engine of this node crashed of it."""
        record = self._records.pop(digest, None)
        if record is None or now >= record.until:
            record = _Record(now)
        record.crashed[life] = node
        record.until = now + POISONED_SECONDS
        self._records[digest] = record
        if len(self._records) > SUSPECTS_MAX:
            del self._records[next(iter(self._records))]

    def cleared(self, digest: Digest) -> None:
        """A token came: it crashes nobody."""
        if self._records:
            self._records.pop(digest, None)

    def nodes(self, now: float, digest: Digest) -> frozenset[NodeId]:
        """The nodes that were lost to it lately."""
        record = self._records.get(digest) if self._records else None
        return frozenset(record.crashed.values()) if record is not None and now < record.until else frozenset()

    def poisoned(self, now: float, digest: Digest) -> bool:
        """Whether it has crashed as many engines as it may."""
        record = self._records.get(digest) if self._records else None
        return record is not None and now < record.until and len(record.crashed) >= CRASHES_MAX

    def seconds_left(self, now: float, digest: Digest) -> float:
        """How long it is refused."""
        record = self._records.get(digest)
        return max(0.0, record.until - now) if record is not None else 0.0

    def try_one(self, model: str, request: RequestId) -> bool:
        """Whether this suspect may run now: not while another one of the model does."""
        return self._on_trial.setdefault(model, request) == request

    def over(self, model: str, request: RequestId) -> None:
        """Its attempt is over, or has shown a token."""
        if self._on_trial.get(model) == request:
            del self._on_trial[model]
