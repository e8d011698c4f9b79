"""The two rungs that need a permission of the driver: the card's own target temperature, and its power limit.

Each is wished, then confirmed by reading it back:

    idle --wish--> pending --confirmed--> in use
                           --else, or ACTUATE_SECONDS without a word--> failed, and tried again after RETRY_SECONDS

The target is set as soon as there is a temperature, and anew with each cap. The power limit goes down step by step
while it gets too warm, and up again while it is cool, never above what the owner has set. What is claimed was
confirmed: a step that failed leaves the one before in force. A rung that failed does not hold the next one up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

#: A driver that has not answered by now has not done it.
ACTUATE_SECONDS = 5.0
#: Below the temperature at which work stops, so that a card that holds it goes on; above that at which it is resumed.
TARGET_BELOW_CAP = 4.0
#: The power limit goes down before work has to stop: then the card goes on, and somewhat slower.
POWER_BELOW_CAP = 3.0
#: One step: a seventh of the power costs some hundredths of the speed, and shows within a few seconds.
POWER_STEP = 0.85
STEP_SECONDS = 5.0
#: Going up is not urgent, and waits for the temperature at which work is resumed.
RAISE_SECONDS = 60.0
RAISE_BELOW_CAP = 5.0
#: Drivers round what they are told.
WATTS_SLACK = 1.0
#: A reading may have begun before what was set meanwhile. None takes longer than that.
SETTLE_SECONDS = 2.0
#: A driver may have been busy for a moment; where it never permits anything, it is asked once an hour.
RETRY_SECONDS = 60.0
RETRY_SECONDS_MAX = 3600.0


class Rung(IntEnum):
    """What is done about heat, the gentlest first."""

    NONE = 0
    TARGET_TEMPERATURE = 1
    POWER_LIMIT = 2
    FEWER_SLOTS = 3
    DRAIN = 4
    STOP = 5


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the driver lets this agent set on a card. Without a range of watts no power limit is set."""

    target_temperature: bool = False
    power_limit: bool = False
    watts_min: float = 0.0
    watts_max: float = 0.0
    #: Degrees Celsius; 0: any.
    target_min: float = 0.0
    target_max: float = 0.0

    def and_told(self, told: Abilities) -> Abilities:
        """With what is told now. What is not told just now is not unlearnt."""
        able = self
        if told.target_temperature:
            able = replace(able, target_temperature=True, target_min=told.target_min, target_max=told.target_max)
        if told.power_limit:
            able = replace(able, power_limit=True, watts_min=told.watts_min, watts_max=told.watts_max)
        return able


@dataclass(frozen=True, slots=True)
class Actuation:
    """A wish: set this, read it back, and say whether it is so. Celsius or watts, by its rung."""

    rung: Rung
    value: float


@dataclass(frozen=True, slots=True)
class _Tries:
    """Of one rung, since it was last confirmed."""

    failed: int = 0
    again_at: float = -math.inf

    def one_more(self, now: float) -> _Tries:
        wait = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2.0 ** min(self.failed, 16))
        return _Tries(self.failed + 1, now + wait)


class Actuators:
    """The two of one card. Times are monotonic seconds."""

    def __init__(self, cap: float, abilities: Abilities) -> None:
        """`cap` in degrees Celsius."""
        self._cap = cap
        self.abilities = abilities
        self._pending: tuple[Actuation, float] | None = None
        self._tries = {Rung.TARGET_TEMPERATURE: _Tries(), Rung.POWER_LIMIT: _Tries()}
        #: The target that is confirmed; None: none.
        self._target: float | None = None
        #: What the owner has set; None: not told yet, and no limit of ours before it is.
        self._owners: float | None = None
        #: What is confirmed of ours; None: nothing.
        self._watts: float | None = None
        #: What was wished last and not confirmed: it may have been done all the same.
        self._tried: float | None = None
        self._stepped_at = -math.inf

    @property
    def rung(self) -> Rung:
        """The highest in use: confirmed, and nothing else."""
        if self._limited:
            return Rung.POWER_LIMIT
        return Rung.TARGET_TEMPERATURE if self._holds_below_cap else Rung.NONE

    @property
    def watts(self) -> float | None:
        """The limit in use; None: none of ours."""
        return self._watts if self._limited else None

    @property
    def _limited(self) -> bool:
        return self._watts is not None and self._watts < (self._owners or 0.0) - WATTS_SLACK

    @property
    def _goal(self) -> float:
        """The target for this cap, or what is closest to it of all that the card takes."""
        goal = self._cap - TARGET_BELOW_CAP
        if self.abilities.target_max > 0.0:
            goal = min(max(goal, self.abilities.target_min), self.abilities.target_max)
        return goal

    @property
    def _holds_below_cap(self) -> bool:
        return self._target == self._goal and self._goal < self._cap

    def told(self, now: float, limit_watts: float) -> None:
        """This power limit was read. One that we have not left, and have not tried, is the owner's from now on."""
        if self._pending is not None or now - self._stepped_at < SETTLE_SECONDS:
            return
        left = self._owners if self._watts is None else self._watts
        if _same(limit_watts, self._tried):
            self._watts = self._tried
        elif not _same(limit_watts, left):
            self._owners, self._watts = limit_watts, None
        self._tried = None

    def wishes(self, now: float, celsius: float, forecast: float) -> tuple[Actuation, ...]:
        """What should be set now; one at a time."""
        if self._pending is not None and now - self._pending[1] > ACTUATE_SECONDS:
            self.actuated(now, self._pending[0].rung, confirmed=False)
        if self._pending is not None:
            return ()
        wish = self._wish(now, celsius, forecast)
        if wish is None:
            return ()
        self._pending = (wish, now)
        return (wish,)

    def _wish(self, now: float, celsius: float, forecast: float) -> Actuation | None:
        if self._may(now, Rung.TARGET_TEMPERATURE) and self._target != self._goal:
            return Actuation(Rung.TARGET_TEMPERATURE, self._goal)
        if not self._may(now, Rung.POWER_LIMIT) or self._owners is None:
            return None
        watts = self._owners if self._watts is None else self._watts
        since = now - self._stepped_at
        if forecast >= self._cap - POWER_BELOW_CAP and since >= STEP_SECONDS:
            lower = max(self.abilities.watts_min, watts * POWER_STEP)
            return Actuation(Rung.POWER_LIMIT, lower) if lower < watts else None
        if celsius <= self._cap - RAISE_BELOW_CAP and self._limited and since >= RAISE_SECONDS:
            return Actuation(Rung.POWER_LIMIT, min(self._owners, watts / POWER_STEP))
        return None

    def _may(self, now: float, rung: Rung) -> bool:
        able = self.abilities
        if rung is Rung.TARGET_TEMPERATURE:
            return able.target_temperature and now >= self._tries[rung].again_at
        return able.power_limit and 0.0 < able.watts_min < able.watts_max and now >= self._tries[rung].again_at

    def actuated(self, now: float, rung: Rung, confirmed: bool) -> None:
        """It was read back: `confirmed` where it is as it was wished. What nobody waits for any more is passed over."""
        if self._pending is None or self._pending[0].rung is not rung:
            return
        wish, _ = self._pending
        self._pending = None
        self._tries[rung] = _Tries() if confirmed else self._tries[rung].one_more(now)
        if rung is Rung.TARGET_TEMPERATURE:
            self._target = wish.value if confirmed else None
            return
        self._stepped_at = now
        if confirmed:
            self._watts, self._tried = wish.value, None
        else:
            self._tried = wish.value

    def set_cap(self, cap: float) -> None:
        """The owner has another one; the card's own target follows, also where it failed before."""
        self._cap = cap
        self._tries[Rung.TARGET_TEMPERATURE] = _Tries()


def _same(watts: float, other: float | None) -> bool:
    return other is not None and abs(watts - other) <= WATTS_SLACK
