"""Affinity: the turns of one conversation are asked of the same node, which has read their beginning already.

Rendezvous hashing: every node has a weight for every conversation, and the heaviest is its home. Nobody has to remember
anything, two coordinators agree, and a node that comes or goes moves the conversations of nobody else. Where nodes are
many they stand on a ring, and a conversation looks at the next few from its own place only; there, a node that comes or
goes moves about as many of its neighbours' as of its own.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence

from shrk_coordinator.state.events import NodeId

#: 64 bits of what the turns of one conversation share; NO_AFFINITY: a request that has no home.
Affinity = int
NO_AFFINITY: Affinity = 0
#: Where a node stands on the ring, and its name.
Stand = tuple[int, NodeId]

_BITS = (1 << 64) - 1


def digest(*parts: bytes) -> Affinity:
    """The affinity of what these parts are equal in."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        # With its length, so that no two splits of one text are the same.
        hashed.update(len(part).to_bytes(8, "big") + part)
    return int.from_bytes(hashed.digest(), "big") or 1


def weight(affinity: Affinity, mark: int) -> int:
    """How much a conversation weighs to a node: as good as drawn, and the same whenever it is asked (splitmix64)."""
    mixed = (affinity ^ mark) * 0x9E3779B97F4A7C15 & _BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _BITS
    return mixed ^ mixed >> 31


class Ring:
    """Nodes in the order of their marks. Adding and removing one costs a search, and moving pointers in memory."""

    __slots__ = ("_stands",)

    def __init__(self) -> None:
        self._stands: list[Stand] = []

    def add(self, node_id: NodeId) -> None:
        """A node that is not on it."""
        insort(self._stands, _stand(node_id))

    def remove(self, node_id: NodeId) -> None:
        """A node that is on it."""
        at = bisect_left(self._stands, _stand(node_id))
        assert self._stands[at][1] == node_id, "it was added"
        del self._stands[at]

    def homes(self, affinity: Affinity, count: int) -> Sequence[NodeId]:
        """The nodes that a conversation is at home at, the first first; of more than `count` so many."""
        stands = self._stands
        if len(stands) > count:
            first = bisect_left(stands, (affinity, ""))
            stands = [stands[at % len(stands)] for at in range(first, first + count)]
        return [node_id for _, node_id in sorted(stands, key=lambda stand: weight(affinity, stand[0]), reverse=True)]


def _stand(node_id: NodeId) -> Stand:
    return digest(node_id.encode()), node_id
