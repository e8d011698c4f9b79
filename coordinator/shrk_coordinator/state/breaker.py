"""A breaker for each model on each node: whoever keeps failing is left alone for a while, then probed.

    closed --3 failures in a row, or a stall--> open --its time is over, or its first new life--> half-open
      ^                                          ^                                                          |
      +------------ a token came ----------------+------------------- the probe failed ---------------------+

It outlives engines and links: who comes back after a failure gets one request at a time until a token comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from shrk_coordinator.state.lives import EngineLife

#: Failures in a row that open it: one may be the request's fault, two a coincidence.
FAILURES_MAX = 3
#: How long it stays open the first time, and more each time it opens without a token in between.
OPEN_SECONDS = 30.0
OPEN_SECONDS_MAX = 300.0
#: A probe that has shown nothing by then does not keep others from trying.
PROBE_SECONDS_MAX = 30.0
#: Probes that failed in a row, from which on it is no passing trouble: the second comes a minute and a half after it
#: opened, when an engine that hung has been started anew by its own node, and a driver has been mended or will not be.
SICK_PROBES_MIN = 2


@dataclass(slots=True)
class Breaker:
    """One model on one node. Times are monotonic seconds."""

    failures: int = 0
    #: How often it has opened without a token in between; 0: it is closed.
    opened: int = 0
    #: While open: since when, and when it is to be probed.
    opened_at: float = 0.0
    open_until: float = 0.0
    #: When the last probe began; None while none is under way.
    probed_at: float | None = None
    #: It opened because something stalled there: the node may be well, and is better than none.
    stalled: bool = False
    #: When it opened last: what was sent before says nothing new.
    _opened_last_at: float = 0.0
    #: The life whose loss was counted, and when: many attempts may be lost with it.
    _lost: EngineLife | None = None
    _lost_at: float = 0.0

    @property
    def closed(self) -> bool:
        """Whether nothing is held against it."""
        return self.opened == 0

    @property
    def sick(self) -> bool:
        """Whether its engine is no use though it runs, for whatever reason it opened."""
        return self.opened > SICK_PROBES_MIN

    def allows(self, now: float) -> bool:
        """Whether a request may be sent: it is closed, or due for a probe."""
        if self.opened == 0:
            return True
        probing = self.probed_at is not None and now - self.probed_at < PROBE_SECONDS_MAX
        return now >= self.open_until and not probing

    def began(self, now: float) -> bool:
        """A request is sent; True where it is the probe. What goes on there for want of any other node is none."""
        probes = self.opened > 0 and self.allows(now)
        if probes:
            self.probed_at = now
        return probes

    def gave_way(self, begun_at: float) -> None:
        """The probe that began then ended without saying anything for or against it."""
        if self.probed_at == begun_at:
            self.probed_at = None

    def spoke(self) -> None:
        """A token came."""
        self.failures = self.opened = 0
        self.probed_at, self.stalled, self._lost = None, False, None

    def failed(self, now: float, lost: EngineLife | None = None, begun_at: float | None = None) -> bool:
        """A request failed there, sent at `begun_at`; `lost`: together with the engine's life, which counts once.

        True where it was lost with the engine; what is sent later to an engine that is said to be lost, and lives, is
        a failure like any other.
        """
        if lost is not None and lost == self._lost and (begun_at is None or begun_at <= self._lost_at):
            if begun_at is not None and begun_at == self.probed_at:
                self._open(now)  # It was the probe: whatever else was lost with it, it has failed.
            return True
        news = lost is not None and lost != self._lost
        if lost is not None:
            self._lost, self._lost_at = lost, now
        self.failures += 1
        if (self.opened or self.failures >= FAILURES_MAX) and not self._is_old(begun_at):
            self._open(now)
            self.stalled = False
        return news

    def stall(self, now: float, begun_at: float | None = None) -> None:
        """A stream stalled there, sent at `begun_at`."""
        if (self.opened == 0 or self.probed_at is not None) and not self._is_old(begun_at):
            self._open(now)
            self.stalled = True

    def _is_old(self, begun_at: float | None) -> bool:
        """Whether it was under way when it opened: all that fails of it is one event."""
        return self.opened > 0 and begun_at is not None and begun_at <= self._opened_last_at

    def _open(self, now: float) -> None:
        if now < self.open_until and self.probed_at is None and self.opened:
            return  # It was sent for want of any other, and shows nothing new.
        self._opened_last_at = now
        self.opened_at = self.opened_at if self.opened else now
        self.opened += 1
        self.open_until = now + min(OPEN_SECONDS * self.opened, OPEN_SECONDS_MAX)
        self.probed_at = None

    def new_life(self, now: float) -> None:
        """The engine was started anew, or its node dialled again: worth a probe at once the first time, not each time.
        What probed its last life shows nothing any more."""
        self.probed_at = None
        if self.opened == 1:
            self.open_until = min(self.open_until, now)

    def unloaded(self) -> None:
        """Its engine is stopped, as it should be: what is loaded there some day is probed at once, and not yet sick."""
        self.opened, self.open_until, self.probed_at = min(self.opened, 1), 0.0, None
