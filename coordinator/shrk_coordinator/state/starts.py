"""Whether one identity is used on two machines: the starts of one agent follow each other, and never take turns.

    SINGLE --a start that another has followed dials again, and again--> COPIED
    COPIED --for ALONE_SECONDS only one start has dialled--> SINGLE

A late hello of an agent that is gone may be one such return, never two. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Hellos of one start after another has followed it: the first may have been under way while its agent died.
RETURNS_MAX = 2
#: A start that has not dialled for so long is forgotten: agents that are refused for good dial about once a minute.
FORGET_SECONDS = 3_600.0
#: Ten times the pause of an agent that is refused: whoever is not heard for so long has stopped, or is another node.
ALONE_SECONDS = 600.0
#: Starts that are remembered of one node: two that take turns, and those of an agent that crashes again and again.
STARTS_MAX = 16

#: An agent's incarnation and its random id; older agents tell no id.
Start = tuple[int, bytes]


@dataclass(slots=True)
class _Dials:
    """One start, as far as it dialled."""

    began_at: float
    last_at: float
    address: str
    #: Hellos since another start has followed.
    returns: int = 0


@dataclass(slots=True)
class Starts:
    """The starts of one node's agent, by their hellos."""

    #: Since when the identity is known to be copied; None: it is not.
    copied_since: float | None = None
    _seen: dict[Start, _Dials] = field(default_factory=dict)

    def dialled(self, now: float, start: Start, address: str, holder: Start | None) -> bool:
        """Take in a hello; whether it may come in. `holder`: the start that has the node's link now."""
        followed = self._is_followed(start)
        known = self._seen.setdefault(start, _Dials(now, now, address))
        known.last_at, known.address = now, address
        self._forget(now, {start, holder})
        if self.copied_since is not None:
            if self._is_alone(now, start):
                self.copied_since, known.returns = None, 0
                self._seen = {start: known}
            return self.copied_since is None
        known.returns += followed
        if known.returns >= RETURNS_MAX:
            self.copied_since = now
        return self.copied_since is None

    def words(self) -> str:
        """Who uses the identity, for people."""
        newest = sorted(self._seen.values(), key=lambda one: -one.last_at)
        places = sorted({one.address for one in newest[:2] if one.address})
        return (
            f"two machines use its identity (they dial from {' and '.join(places)})"
            if places
            else ("two machines use its identity")
        )

    def _is_followed(self, start: Start) -> bool:
        known = self._seen.get(start)
        return known is not None and any(other.began_at > known.began_at for other in self._seen.values())

    def _is_alone(self, now: float, start: Start) -> bool:
        others = [one.last_at for other, one in self._seen.items() if other != start]
        return now - max(others, default=self.copied_since or 0.0) > ALONE_SECONDS

    def _forget(self, now: float, kept: set[Start | None]) -> None:
        """Starts that are long gone, and of many the oldest."""
        by_age = sorted(self._seen, key=lambda start: self._seen[start].last_at)
        many = len(by_age) - STARTS_MAX
        for place, start in enumerate(by_age):
            if start not in kept and (place < many or now - self._seen[start].last_at > FORGET_SECONDS):
                del self._seen[start]
