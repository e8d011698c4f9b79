"""When a stream that has begun counts as stalled: no token for eight times its own pace.

Pieces never pass through the door of `state`: like the commit cursor this is a rule that the relay drives.
"""

from __future__ import annotations

#: Of the newest gap in the running mean: a dozen tokens make up most of it.
WEIGHT = 0.1
#: Gaps that make up the first mean of a stream, or of a model: fewer say little.
GAPS_FIRST = 4
#: A stream stalls after this many of its own gaps …
GAPS_MAX = 8.0
#: … but not before this: garbage collection, another caller's long prompt and home lines take a second …
STALL_SECONDS_MIN = 2.0
#: … and always after this: what takes longer is better begun elsewhere.
STALL_SECONDS_MAX = 10.0
#: Models whose pace is remembered; beyond it all are learnt anew, which takes a stream each.
MODELS_MAX = 10_000
#: A stall that nobody could help is told again after this.
REPEAT_SECONDS = 1.0


class Paces:
    """How fast each model's streams have been: what a new one may be expected to do."""

    def __init__(self) -> None:
        self._gaps: dict[str, float] = {}

    def of(self, model: str) -> float | None:
        """Seconds between two tokens; None where no stream of it was seen yet."""
        return self._gaps.get(model)

    def learn(self, model: str, clock: StallClock) -> None:
        """A stream ended well."""
        if clock.gap is None:
            return
        known = self._gaps.get(model)
        if known is None and len(self._gaps) >= MODELS_MAX:
            self._gaps.clear()
        self._gaps[model] = clock.gap if known is None else known + WEIGHT * (clock.gap - known)


class StallClock:
    """One stream's pace. Times are monotonic seconds."""

    __slots__ = ("_gap", "_gaps", "_last", "_running")

    def __init__(self, expected: float | None = None) -> None:
        """`expected`: seconds between two tokens of other streams like it; None where nothing is known."""
        self._gap = expected
        #: How many of its own gaps are in the mean, up to the number that makes it sound.
        self._gaps = 0
        self._last = 0.0
        #: Only between the first and the last token of an attempt.
        self._running = False

    def token(self, now: float) -> None:
        """A piece came."""
        if self._running:
            self._add(now - self._last)
        self._last = now
        self._running = True

    def _add(self, gap: float) -> None:
        if self._gap is None:
            self._gap = gap
            return
        self._gaps = min(self._gaps + 1, GAPS_FIRST + 1)
        weight = 1 / (self._gaps + 1) if self._gaps <= GAPS_FIRST else WEIGHT
        self._gap += weight * (gap - self._gap)

    @property
    def gap(self) -> float | None:
        """The running mean of seconds between two tokens; None before two came and where nothing was expected."""
        return self._gap

    def rest(self, now: float) -> None:
        """The node may not send now, for want of credit: the time does not count."""
        self._last = now

    def stop(self) -> None:
        """Nothing is waited for: the attempt is over, or has sent its last token."""
        self._running = False

    @property
    def limit(self) -> float:
        """Seconds without a token that this stream may take."""
        if self._gap is None:
            return STALL_SECONDS_MAX
        return min(max(GAPS_MAX * self._gap, STALL_SECONDS_MIN), STALL_SECONDS_MAX)

    def stalled(self, now: float) -> bool:
        """Whether it has stalled; then True again only after REPEAT_SECONDS."""
        if not self._running or now - self._last <= self.limit:
            return False
        self._last = now - self.limit + REPEAT_SECONDS
        return True
