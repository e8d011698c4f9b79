"""Loads that failed: who is not asked again for a while, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

#: After the first failure: a download that broke off, memory that somebody else held for a moment.
RETRY_SECONDS = 60.0
#: What fails every time is tried once an hour, for drivers and disks do get mended.
RETRY_SECONDS_MAX = 3_600.0


@dataclass(slots=True)
class Failures:
    """Of one model on one node."""

    count: int = 0
    until: float = 0.0
    #: The last of them was no load: it was loaded, and its requests kept failing.
    served: bool = False
    #: The node's word that was counted last: a failure stays in its reports.
    _told: float | None = None

    def told(self, now: float, since: float, node_waits_until: float) -> bool:
        """The node says that it failed at `since`; whether that is news."""
        if since == self._told:
            return False
        self._told = since
        self.happened(now)
        self.until = max(self.until, min(node_waits_until, now + RETRY_SECONDS_MAX))
        return True

    def happened(self, now: float, *, served: bool = False) -> None:
        """It failed, or did not come in time; `served`: it was loaded, and its requests kept failing."""
        self.served = served
        self.count = self.recent(now) + 1
        self.until = now + min(RETRY_SECONDS * 2 ** min(self.count - 1, 16), RETRY_SECONDS_MAX)

    def recent(self, now: float) -> int:
        """How often, in a row; who was well for as long as it could have been made to wait has a clean record."""
        return 0 if now - self.until > RETRY_SECONDS_MAX else self.count
