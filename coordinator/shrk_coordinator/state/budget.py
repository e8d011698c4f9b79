"""What may be spent on second tries, so that a network in trouble is not asked twice as much as one that is well."""

from __future__ import annotations

#: Retries for each request: attempts stay below 1.2 times the requests.
RETRY_SHARE = 0.2
#: So many at the same time are always allowed: a small network has few requests to save up from.
RETRIES_MIN = 3
#: Hedges for each request.
HEDGE_SHARE = 0.05
#: What a quiet hour saves up is worth no more than this many.
SAVED_MAX = 20.0


class Budget:
    """A share of all requests, saved up as they come."""

    __slots__ = ("_saved", "_share", "_under_way", "_under_way_min")

    def __init__(self, share: float, under_way_min: int = 0, saved: float = 0.0) -> None:
        """`under_way_min`: so many at once need no savings; `saved`: to begin with."""
        self._share = share
        self._saved = saved
        self._under_way = 0
        self._under_way_min = under_way_min

    def request(self) -> None:
        """A request came."""
        self._saved = min(self._saved + self._share, SAVED_MAX)

    def spend(self) -> bool:
        """Take one try, and keep it until `done`; False where none is left."""
        if self._saved < 1.0 and self._under_way >= self._under_way_min:
            return False
        self._saved = max(0.0, self._saved - 1.0)
        self._under_way += 1
        return True

    def done(self) -> None:
        """A try that was spent is over."""
        self._under_way -= 1
