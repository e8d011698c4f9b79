"""Whether an engine that says it is well still moves: by its answers, by its own figures, by one token asked for.

    MOVING  --> LOOKING   nothing for QUIET_SECONDS with attempts under way, or for IDLE_CANARY_SECONDS without
    LOOKING --> MOVING    a token came, or its figures moved
            --> ASKED     looked twice, nothing moved, and a canary finds a slot
            --> restart   full, and nothing moved for HUNG_SECONDS_MAX
    ASKED   --> MOVING    a token came, the canary's or another
            --> restart   none came, and nothing moved, for CANARY_SECONDS_MAX (full: HUNG_SECONDS_MAX)

/health is no sign of life: it stays green while the engine's core hangs. What may be taken for one is what only the
core can bring about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: Attempts run and nothing comes: eight times the slowest pace that is of use, and the time in which a coordinator
#: begins to call a stream stalled.
QUIET_SECONDS = 2.0
#: With nothing to do. One token a minute costs nothing, and a caller should not be the one to find out.
IDLE_CANARY_SECONDS = 60.0
#: Between two looks at the engine's figures.
LOOK_INTERVAL_SECONDS = 1.0
#: For the two looks that come before a canary; an engine that does not even tell its figures is asked without them.
LOOK_SECONDS_MAX = 2.0
#: For one token from an engine with a free slot. One step with a long prompt in it takes 4 s on the slowest GPUs.
CANARY_SECONDS_MAX = 8.0
#: In a full engine a canary would wait its turn, so that the figures alone decide. They move with every step.
HUNG_SECONDS_MAX = 30.0
#: What looks like a hang may be an engine that is too slow for the limits above. Ended again and again, it would serve
#: nobody: each failure in a row doubles the limits, this often at most (8 s become 128 s).
DOUBLINGS_MAX = 4
#: An agent that was not run itself for this long (a laptop asleep, a stopped process) cannot tell whether its engine
#: was: that time does not count.
LAPSE_SECONDS = 2.0


class Phase(Enum):
    """What is known; the picture above."""

    MOVING = "moving"
    #: Do its figures move? Ends with LOOK_SECONDS_MAX, while it is full with HUNG_SECONDS_MAX.
    LOOKING = "looking"
    #: A canary is under way. Ends with CANARY_SECONDS_MAX, while it is full with HUNG_SECONDS_MAX.
    ASKED = "asked"


class Want(Enum):
    """What should be done about an engine."""

    READ_FIGURES = "read figures"
    ASK_CANARY = "ask canary"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has to do."""

    in_flight: int
    slots: int
    #: Failures in a row, of which it has not recovered yet.
    failures: int = 0

    @property
    def full(self) -> bool:
        """A canary would have to wait."""
        return self.in_flight >= self.slots

    @property
    def factor(self) -> int:
        """By how much the limits are stretched."""
        return 1 << min(self.failures, DOUBLINGS_MAX)


@dataclass(slots=True)
class Liveness:
    """One engine from its first token on. Times are monotonic seconds."""

    #: When it became ready, or last moved.
    moved_at: float
    #: When attempts last began with none under way before.
    busy_since: float
    phase: Phase = Phase.MOVING
    #: When the phase began; a canary's time counts anew with every change of the figures.
    since: float = 0.0
    #: Answers that wait for their coordinator's credit: it is not the engine that they wait for.
    held: int = 0
    _figures: tuple[str, ...] | None = None
    #: Looks of the present spell that were answered.
    _looks: int = 0
    _looked_at: float = 0.0
    #: Not every engine tells figures: without them, a full one cannot be judged.
    _tells: bool = True
    _ticked_at: float | None = None

    @classmethod
    def ready(cls, now: float) -> Liveness:
        """It has just given its first token."""
        return cls(moved_at=now, busy_since=now)

    # --- what is seen --------------------------------------------------------------------------------

    def moved(self, now: float) -> None:
        """A token came, or a canary was answered."""
        self.phase, self.moved_at = Phase.MOVING, now

    def answers_moved(self, now: float, held: int) -> None:
        """Pieces came, or credit came or ran out (after which the engine is judged anew)."""
        self.held = held
        self.moved(now)

    def became_busy(self, now: float) -> None:
        """An attempt begins, and none was under way."""
        self.busy_since = now

    def figures_read(self, now: float, figures: tuple[str, ...]) -> None:
        """The engine told its figures; they are empty where it has none."""
        if self.phase is Phase.MOVING:
            return
        changed = self._figures is not None and figures != self._figures
        self._figures, self._tells = figures, bool(figures)
        self._looks += 1
        if changed and self.phase is Phase.LOOKING:
            self.moved(now)
        elif changed:
            # It may be no more than the canary itself, taken in: more time, but not yet a sign of life.
            self.since = self.moved_at = now

    # --- what follows --------------------------------------------------------------------------------

    def tick(self, now: float, load: Load) -> Want | None:
        """What to do now; after RESTART this engine's life is over."""
        self._skip_lapse(now)
        if self.phase is Phase.MOVING:
            if not self._quiet(now, load):
                return None
            self.phase, self.since = Phase.LOOKING, now
            self._figures, self._looks = None, 0
            return self._look(now)
        if self.held >= load.slots:
            return None  # Every slot may be taken by an answer that we do not read on.
        if self._hangs(now, load):
            return Want.RESTART
        looked = self._looks >= 2 or now - self.since >= LOOK_SECONDS_MAX
        if self.phase is Phase.LOOKING and looked and not load.full:
            self.phase, self.since = Phase.ASKED, now
            return Want.ASK_CANARY
        return self._look(now) if now - self._looked_at >= LOOK_INTERVAL_SECONDS else None

    def _look(self, now: float) -> Want:
        self._looked_at = now
        return Want.READ_FIGURES

    def _quiet(self, now: float, load: Load) -> bool:
        if load.in_flight and now - max(self.moved_at, self.busy_since) >= QUIET_SECONDS:
            return True
        return now - self.moved_at >= IDLE_CANARY_SECONDS

    def _hangs(self, now: float, load: Load) -> bool:
        if load.full:
            still = now - max(self.moved_at, self.busy_since)
            return self._tells and still >= HUNG_SECONDS_MAX * load.factor
        return self.phase is Phase.ASKED and now - self.since >= CANARY_SECONDS_MAX * load.factor

    def _skip_lapse(self, now: float) -> None:
        lapse = 0.0 if self._ticked_at is None else now - self._ticked_at
        self._ticked_at = now
        if lapse > LAPSE_SECONDS:
            self.moved_at = min(now, self.moved_at + lapse)
            self.busy_since = min(now, self.busy_since + lapse)
            self.since = min(now, self.since + lapse)
