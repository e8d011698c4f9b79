"""A card that warms up and cools down: one thermal mass, a fan, a room around it, and a thermometer that may fail.

Steps of one second. Work makes heat; what the controller wishes is done by the next step, or refused, or done without
being confirmed. Its owner changes the power limit now and then.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from shrk_node_agent.state.terms.actuators import WATTS_SLACK, Abilities, Actuation, Rung

IDLE_WATTS = 25.0
#: So long does it take until an answer has been moved elsewhere.
MOVE_SECONDS = 2
#: Seconds for which an answer runs, on average.
ANSWER_SECONDS = 25.0
#: An engine that was ended loads so long.
LOAD_SECONDS = 60


@dataclass(slots=True)
class Fan:
    """What fails, and how badly: the resistance to the room is so many times the usual."""

    factor: float = 1.0
    until: int = 0
    dead: bool = False
    since: int = -1


@dataclass(slots=True)
class Card:
    """One GPU in somebody's room."""

    dice: random.Random
    slots: int
    busy_watts: float
    #: Degrees a watt with the fan at full speed, joules a degree.
    resistance: float
    capacity: float
    ambient: float
    swing: float
    abilities: Abilities
    #: Read-backs that fail, of all.
    refuses: float
    whole_degrees: bool
    celsius: float = 0.0
    watts: float = IDLE_WATTS
    limit: float = 0.0
    #: What its owner has set last.
    owners_limit: float = 0.0
    owner_changes: int = 0
    target: float | None = None
    running: int = 0
    #: Seconds for which more has run than may.
    excess: int = 0
    loading: int = 0
    fan: Fan = field(default_factory=Fan)
    demand: float = 0.0
    #: Seconds for which the thermometer tells this, and what.
    sensor_for: int = 0
    sensor_tells: float | None = None
    door: float = 0.0

    @classmethod
    def drawn(cls, dice: random.Random, cap: float) -> Card:
        """Small ones and large ones, well and badly cooled: some cannot hold their cap at full load."""
        watts = dice.choice((120.0, 200.0, 300.0, 450.0))
        ambient = dice.uniform(12.0, 30.0)
        full = dice.uniform(cap - 15.0, cap + 25.0)
        resistance = (full - ambient) / watts
        time_constant = dice.uniform(45.0, 180.0)
        abilities = Abilities(dice.random() < 0.3, dice.random() < 0.4, watts * 0.4, watts)
        return cls(
            dice=dice,
            slots=dice.choice((1, 4, 16)),
            busy_watts=watts,
            resistance=resistance,
            capacity=time_constant / resistance,
            ambient=ambient,
            swing=dice.uniform(0.0, 5.0),
            abilities=abilities,
            refuses=dice.choice((0.0, 0.0, 0.3, 1.0)),
            whole_degrees=dice.random() < 0.8,
            celsius=ambient + 10.0,
            limit=watts,
            owners_limit=watts,
        )

    def weather(self, second: int) -> None:
        """What happens by itself."""
        dice = self.dice
        if second % 60 == 0:
            if dice.random() < 0.03:
                self.demand = dice.choice((0.0, 0.2, 1.0, 3.0)) * self.slots / ANSWER_SECONDS
            if dice.random() < 0.01:
                self.door = dice.uniform(-5.0, 5.0)
            if dice.random() < 0.003 and self.fan.until <= second:
                dead = dice.random() < 0.2
                # The worst of them are too hot for their caps even without any load.
                factor = dice.uniform(4.0, 24.0) if dead else dice.uniform(1.2, 2.0)
                self.fan = Fan(factor, second + dice.randrange(60, 2400), dead, second)
            if dice.random() < 0.004:
                self.sensor_for = dice.randrange(1, 120)
                self.sensor_tells = dice.choice((None, None, 0.0, 255.0, -1.0, math.nan))
            if self.abilities.power_limit and dice.random() < 0.003:
                self._owner_sets(self.busy_watts * dice.uniform(0.45, 1.0))
        if self.fan.until <= second:
            self.fan = Fan()

    def _owner_sets(self, watts: float) -> None:
        # What differs by less from the limit in force cannot be told from it, by nobody who only reads it.
        if abs(watts - self.limit) > WATTS_SLACK:
            self.owners_limit = self.limit = watts
            self.owner_changes += 1

    def told(self) -> float | None:
        """What the thermometer says."""
        if self.sensor_for > 0:
            self.sensor_for -= 1
            return self.sensor_tells
        return float(math.floor(self.celsius)) if self.whole_degrees else round(self.celsius, 2)

    def set(self, wish: Actuation) -> bool:
        """What the driver makes of a wish, as it is read back. The sensors refuse a limit above the owner's."""
        refused = self.dice.random() < self.refuses
        if refused and self.dice.random() < 0.8:
            return False
        if wish.rung is Rung.TARGET_TEMPERATURE:
            self.target = wish.value
        elif wish.value > self.owners_limit + WATTS_SLACK:
            return False
        else:
            self.limit = wish.value
        return not refused

    def obey(self, share: float, stop: bool) -> None:
        """What runs beyond its share is moved; what is stopped is gone."""
        if stop:
            self.running, self.loading = 0, LOAD_SECONDS
        allowed = math.ceil(share * self.slots)
        self.excess = self.excess + 1 if self.running > allowed else 0
        if self.excess >= MOVE_SECONDS:
            self.running, self.excess = allowed, 0

    def arrivals(self, share: float) -> int:
        """Requests that would be admitted in this second, where there is a slot for them."""
        if self.loading > 0:
            self.loading -= 1
            return 0
        whole, rest = divmod(self.demand, 1.0)
        wanted = int(whole) + (self.dice.random() < rest)
        return max(0, min(wanted, math.ceil(share * self.slots) - self.running))

    def warm(self, second: int) -> None:
        """One second of work and heat."""
        ended = self.running / ANSWER_SECONDS
        whole = int(ended)
        self.running -= whole + (self.dice.random() < ended - whole)
        busy = math.sqrt(self.running / self.slots)
        watts = min(self.limit, IDLE_WATTS + (self.busy_watts - IDLE_WATTS) * busy)
        if self.target is not None and self.celsius > self.target:
            watts = max(IDLE_WATTS, watts * max(0.3, 1.0 - 0.1 * (self.celsius - self.target)))
        self.watts = watts
        still = self.equilibrium(second, watts)
        self.celsius += (still - self.celsius) / (self.capacity * self.resistance * self.fan.factor)

    def equilibrium(self, second: int, watts: float) -> float:
        """Where it would stay."""
        room = self.ambient + self.door + self.swing * math.sin(second * math.tau / 86_400)
        return room + watts * self.resistance * self.fan.factor
