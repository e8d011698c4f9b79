"""When a stream that has begun counts as stalled: no token for eight times its own pace.

Pieces never pass through the door of `state`: like the commit cursor this is a rule that the relay drives.
"""

from __future__ import annotations

#: Of the newest gap in the running mean: a dozen tokens make up most of it.
WEIGHT = 0.1
#: A stream stalls after this many of its own gaps …
GAPS_MAX = 8.0
#: … but not before this: garbage collection, another caller's long prompt and home lines take a second …
STALL_SECONDS_MIN = 2.0
#: … and always after this: what takes longer is better begun elsewhere.
STALL_SECONDS_MAX = 10.0
#: A stall that nobody could help is told again after this.
REPEAT_SECONDS = 1.0


class StallClock:
    """One stream's pace. Times are monotonic seconds."""

    __slots__ = ("_gap", "_last", "_running")

    def __init__(self) -> None:
        self._gap = 0.0
        self._last = 0.0
        #: Only between the first and the last token of an attempt.
        self._running = False

    def token(self, now: float) -> None:
        """A piece came."""
        if self._running:
            self._gap += WEIGHT * (now - self._last - self._gap)
        self._last = now
        self._running = True

    def rest(self, now: float) -> None:
        """The node may not send now, for want of credit: the time does not count."""
        self._last = now

    def stop(self) -> None:
        """Nothing is waited for: the attempt is over, or has sent its last token."""
        self._running = False

    @property
    def limit(self) -> float:
        """Seconds without a token that this stream may take."""
        return min(max(GAPS_MAX * self._gap, STALL_SECONDS_MIN), STALL_SECONDS_MAX)

    def stalled(self, now: float) -> bool:
        """Whether it has stalled; then True again only after REPEAT_SECONDS."""
        if not self._running or now - self._last <= self.limit:
            return False
        self._last = now - self.limit + REPEAT_SECONDS
        return True
