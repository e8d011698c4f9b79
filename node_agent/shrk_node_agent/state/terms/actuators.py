"""The two rungs that need a permission of the driver: the card's own target temperature, and its power limit.

Each is wished, then confirmed by reading it back:

    idle --wish--> pending --confirmed--> in use
                           --else, or ACTUATE_SECONDS without a word--> failed, and not tried again

The target is set once, as soon as there is a temperature. The power limit goes down step by step while it gets too
warm, and up again while it is cool. A rung that failed is never claimed, and does not hold the next one up.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Actuation:
    """A wish: set this, read it back, and say whether it is so. Celsius or watts, by its rung."""

    rung: Rung
    value: float


class Actuators:
    """The two of one card. Times are monotonic seconds."""

    def __init__(self, cap: float, abilities: Abilities) -> None:
        """`cap` in degrees Celsius."""
        self._cap, self._abilities = cap, abilities
        self._able = {
            Rung.TARGET_TEMPERATURE: abilities.target_temperature,
            Rung.POWER_LIMIT: abilities.power_limit and 0.0 < abilities.watts_min < abilities.watts_max,
        }
        self._pending: tuple[Actuation, float] | None = None
        self._targeted = self._wished_power = False
        #: What the owner had set, and what is confirmed of ours; None: nothing yet.
        self._watts_before: float | None = None
        self._watts: float | None = None
        self._stepped_at = 0.0

    @property
    def rung(self) -> Rung:
        """The highest in use: confirmed, and nothing else."""
        if self._limited:
            return Rung.POWER_LIMIT
        return Rung.TARGET_TEMPERATURE if self._targeted else Rung.NONE

    @property
    def watts(self) -> float | None:
        """The limit in use; None: none of ours."""
        return self._watts if self._limited else None

    @property
    def _limited(self) -> bool:
        return self._watts is not None and self._watts < (self._watts_before or 0.0) - WATTS_SLACK

    def wishes(self, now: float, celsius: float, forecast: float, limit_watts: float | None) -> tuple[Actuation, ...]:
        """What should be set now; one at a time. `limit_watts`: the power limit in force, where it is told."""
        if self._pending is not None and now - self._pending[1] > ACTUATE_SECONDS:
            self.actuated(now, self._pending[0].rung, confirmed=False)
        if self._pending is not None:
            return ()
        if self._watts_before is None:
            self._watts_before = limit_watts or self._abilities.watts_max
        wish = self._wish(now, celsius, forecast)
        if wish is None:
            return ()
        self._pending = (wish, now)
        self._wished_power |= wish.rung is Rung.POWER_LIMIT
        return (wish,)

    def _wish(self, now: float, celsius: float, forecast: float) -> Actuation | None:
        if self._able[Rung.TARGET_TEMPERATURE] and not self._targeted:
            return Actuation(Rung.TARGET_TEMPERATURE, self._cap - TARGET_BELOW_CAP)
        before = self._watts_before
        if not self._able[Rung.POWER_LIMIT] or before is None:
            return None
        watts = before if self._watts is None else self._watts
        since = now - self._stepped_at
        if forecast >= self._cap - POWER_BELOW_CAP and (self._watts is None or since >= STEP_SECONDS):
            lower = max(self._abilities.watts_min, watts * POWER_STEP)
            return Actuation(Rung.POWER_LIMIT, lower) if lower < watts else None
        if celsius <= self._cap - RAISE_BELOW_CAP and self._limited and since >= RAISE_SECONDS:
            return Actuation(Rung.POWER_LIMIT, min(before, watts / POWER_STEP))
        return None

    def actuated(self, now: float, rung: Rung, confirmed: bool) -> None:
        """It was read back: `confirmed` where it is as it was wished. What nobody waits for any more is passed over."""
        if self._pending is None or self._pending[0].rung is not rung:
            return
        wish, _ = self._pending
        self._pending, self._stepped_at = None, now
        if rung is Rung.TARGET_TEMPERATURE:
            self._targeted = self._able[rung] = confirmed
        elif confirmed:
            self._watts = wish.value
        else:
            self._able[rung], self._watts = False, None

    def set_cap(self, cap: float) -> None:
        """The owner has another one; the card's own target follows."""
        self._cap, self._targeted = cap, False

    def released(self) -> tuple[Actuation, ...]:
        """What gives the card its power back when the agent ends, also where a wish of ours was never confirmed."""
        if self._watts_before is None or not self._wished_power:
            return ()
        return (Actuation(Rung.POWER_LIMIT, self._watts_before),)
