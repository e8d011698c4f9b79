"""How many replicas a model should have: three, more while requests queue, none when nobody has asked for an hour."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_coordinator.state.replicas.facts import ModelFacts

#: One node may be lost while another is away for its own reasons, and still somebody serves.
REPLICAS_WANTED = 3
#: Without a request for so long, a model makes room where an operator allows it. Loading takes minutes, people come
#: back after lunch.
IDLE_SECONDS = 3_600.0
#: Requests that wait for each replica, from which on another one pays: fewer are gone before it has loaded.
QUEUE_PER_REPLICA = 2.0
#: A model grows by this fraction of its replicas at once, so that a crowd is met within a few loads.
GROWTH = 0.25
#: Nobody waits, and fewer requests than this are under way for each replica: one less would do ...
CALM_PER_REPLICA = 0.5
#: ... if it stays so this long. Growing is quick and shrinking slow, so that waves do not make nodes load and unload.
CALM_SECONDS = 1_800.0


@dataclass(slots=True)
class Appetite:
    """One model's."""

    #: Replicas beyond three, and when that last changed.
    extra: int = 0
    changed_at: float = 0.0
    #: Since when one less would do.
    calm_since: float | None = None
    #: Nobody asks; it is served only where it may not be unloaded.
    idle: bool = False
    #: When it was asked for after it had been unloaded everywhere; until one replica serves, one is enough.
    woken_at: float | None = None

    def look(self, now: float, facts: ModelFacts, serving: int, assigned: int) -> None:
        """Take in how things are: replicas that serve, and those that serve or are to."""
        busy = facts.under_way + facts.waiting > 0
        idle = not busy and now - facts.asked_at >= IDLE_SECONDS
        if self.idle and not idle and not assigned:
            self.woken_at = now
        self.idle = idle
        if self.woken_at is not None and (serving or now - self.woken_at >= 2 * facts.load_seconds):
            self.woken_at = None
        if idle:
            self.extra, self.calm_since = 0, None
        else:
            self._adapt(now, facts, serving)

    def _adapt(self, now: float, facts: ModelFacts, serving: int) -> None:
        target = REPLICAS_WANTED + self.extra
        if serving and facts.waiting >= QUEUE_PER_REPLICA * serving:
            self.calm_since = None
            # Who was asked for last has to have come, or it is not known that it does not help.
            if serving >= target and now - self.changed_at >= facts.load_seconds:
                self.extra += max(1, int(serving * GROWTH))
                self.changed_at = now
        elif facts.waiting or facts.under_way >= CALM_PER_REPLICA * target:
            self.calm_since = None
        elif self.calm_since is None:
            self.calm_since = now
        elif self.extra and now - self.calm_since >= CALM_SECONDS:
            self.extra -= 1
            self.changed_at = self.calm_since = now

    @property
    def target(self) -> int:
        """How many replicas there should be."""
        return 1 if self.woken_at is not None else REPLICAS_WANTED + self.extra

    def gave_up(self, now: float, reached: int) -> None:
        """There is no room for more than it has: it asks again when it has queued for another while."""
        self.extra = max(0, min(self.extra, reached - REPLICAS_WANTED))
        self.changed_at = now
