"""Queries of death: requests that crash the engine that reads them are stopped before they have crashed them all.

Blamed is a request that had no token yet when its engine crashed by itself. A blamed one is a suspect: it runs on
another node where there is one, and on no node where another suspect is being read, so that the next crash tells which
it was. A token clears it; a crash on a second node, or a third one on the same, convicts it for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.lives import EngineLife

Digest = bytes

#: How long a request that crashed two engines is refused, and how long one that crashed one is a suspect.
POISONED_SECONDS = 600.0
#: Nodes that may lose an engine to it; where there is but one node, engines.
NODES_MAX = 2
CRASHES_MAX = 3
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

    def cleared(self, digest: Digest) -> bool:
        """A token came: it crashes nobody. True where it was a suspect."""
        return bool(self._records) and self._records.pop(digest, None) is not None

    def nodes(self, now: float, digest: Digest) -> frozenset[NodeId]:
        """The nodes that were lost to it lately."""
        record = self._records.get(digest) if self._records else None
        return frozenset(record.crashed.values()) if record is not None and now < record.until else frozenset()

    def poisoned(self, now: float, digest: Digest) -> bool:
        """Whether it has crashed as many engines as it may."""
        record = self._records.get(digest) if self._records else None
        if record is None or now >= record.until:
            return False
        return len(set(record.crashed.values())) >= NODES_MAX or len(record.crashed) >= CRASHES_MAX

    def seconds_left(self, now: float, digest: Digest) -> float:
        """How long it is refused."""
        record = self._records.get(digest)
        return max(0.0, record.until - now) if record is not None else 0.0
