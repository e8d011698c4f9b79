"""The heat controller on cards that warm up and cool down, one seed a card's afternoon; its laws are held every second.

* Nothing is admitted at cap - 2 or more: of the card itself, not of what the thermometer says of it. What is admitted
  in the very second in which a fan fails is counted apart: no reading can tell of that yet.
* A card at work is not above cap + 1 for more than 5 s at a time, whatever its fan does.
* Nor is it without work, where its fan turns. Where it stands still, physics forbids it: without any load such a card
  needs minutes to cool, and what the controller can do it has done: in the end by ending its engines.
* It does not change more often than six times in any hour.
* A temperature that nobody believes admits nothing.
* No power limit is wished above the one that its owner has set, however often that changes.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from dataclasses import dataclass, field

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.actuators import WATTS_SLACK, Actuation, Rung
from shrk_node_agent.state.terms.thermal import FLIPS_SECONDS, LIMITS, Heat, Limits
from simulation.terms.card import Card

HOURS = 4
ABOVE_SECONDS_MAX = 5
FLIPS_MAX = 6
UUID = "GPU-0"


class Violation(Exception):
    """Something that must hold did not."""


@dataclass(slots=True)
class Outcome:
    """What one card's afternoon came to."""

    admitted: int = 0
    #: Of these at cap - 2 or more, in the second in which the fan failed.
    admitted_unforeseen: int = 0
    excursions: int = 0
    #: Seconds above cap + 1 in a row: with a fan that turns, at work, and at all.
    above_seconds_max: int = 0
    above_working_seconds_max: int = 0
    above_fanless_seconds_max: int = 0
    flips_an_hour_max: int = 0
    admitting_seconds: int = 0
    owner_changes: int = 0
    rungs: set[str] = field(default_factory=set)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """How a seed is run."""

    limits: Limits = LIMITS
    #: Of the planted bug, for the command that replays.
    planted: str = ""
    digest: bool = False
    show: bool = False


@dataclass(slots=True)
class Afternoon:
    """One card, its controller, and what is counted."""

    seed: int
    course: Course
    cap: float
    card: Card
    heat: Heat
    outcome: Outcome = field(default_factory=Outcome)
    wishes: tuple[Actuation, ...] = ()
    flips: deque[int] = field(default_factory=deque)
    above: int = 0
    above_working: int = 0
    fan_died: bool = False
    told: float | None = None
    told_at: int = 0
    trace: list[str] = field(default_factory=list)

    def violated(self, second: int, what: str) -> Violation:
        """The law's violation, with the command that replays it."""
        planted = f" --plant {self.course.planted}" if self.course.planted else ""
        return Violation(
            f"seed {self.seed}, at {second} s: {what}; cap {self.cap:g} °C, {self.heat.view}, {self.card}\n"
            f"python -m simulation.terms --seed {self.seed}{planted} --trace"
        )

    def step(self, second: int) -> None:
        """One second."""
        card, heat = self.card, self.heat
        card.weather(second)
        celsius = card.told()
        before = heat.view
        for wish in self.wishes:
            heat.actuated(second, wish.rung, card.set(wish))
        limit = card.limit if card.abilities.power_limit else None
        reading = GpuReading(UUID, 0, "simulated", temperature_celsius=celsius, power_limit_watts=limit)
        self.wishes = heat.reading(second, reading)
        self._wished(second)
        view = heat.view
        if celsius is not None:
            self.told, self.told_at = celsius, second
        if view.admits is not before.admits:
            self._flipped(second)
        if view.rung is not before.rung or view.admits is not before.admits:
            self._tell(second, before.rung)
        card.obey(view.slot_share, view.stop)
        card.warm(second)
        if view.admits and (arrived := card.arrivals(view.slot_share)):
            self._admitted(second, arrived)
        self._above(second)
        self.outcome.admitting_seconds += view.admits

    def _admitted(self, second: int, arrived: int) -> None:
        if self.card.celsius >= self.cap - 2.0:
            if self.card.fan.since != second:
                raise self.violated(second, f"admits at {self.card.celsius:.2f} °C")
            self.outcome.admitted_unforeseen += arrived
        if self.told is None or not 0.0 < self.told <= 150.0 or second - self.told_at > ABOVE_SECONDS_MAX:
            raise self.violated(second, f"admits with a thermometer that tells {self.told}")
        self.card.running += arrived
        self.outcome.admitted += arrived

    def _wished(self, second: int) -> None:
        for wish in self.wishes:
            if wish.rung is Rung.POWER_LIMIT and wish.value > self.card.owners_limit + WATTS_SLACK:
                raise self.violated(second, f"wishes {wish.value:g} W, more than its owner's")

    def _flipped(self, second: int) -> None:
        self.flips.append(second)
        while second - self.flips[0] >= FLIPS_SECONDS:
            self.flips.popleft()
        self.outcome.flips_an_hour_max = max(self.outcome.flips_an_hour_max, len(self.flips))
        if len(self.flips) > FLIPS_MAX:
            raise self.violated(second, f"{len(self.flips)} changes within an hour")

    def _above(self, second: int) -> None:
        outcome, above = self.outcome, self.card.celsius > self.cap + 1.0
        if not above:
            self.above = self.above_working = 0
            self.fan_died = False
            return
        self.fan_died |= self.card.fan.dead
        outcome.excursions += self.above == 0
        self.above += 1
        self.above_working = self.above_working + 1 if self.card.running else 0
        outcome.above_working_seconds_max = max(outcome.above_working_seconds_max, self.above_working)
        if self.fan_died:
            outcome.above_fanless_seconds_max = max(outcome.above_fanless_seconds_max, self.above)
        else:
            outcome.above_seconds_max = max(outcome.above_seconds_max, self.above)
        if self.above_working > ABOVE_SECONDS_MAX:
            raise self.violated(second, f"at work above cap + 1 for {self.above_working} s")
        if self.above > ABOVE_SECONDS_MAX and not self.fan_died:
            raise self.violated(second, f"above cap + 1 for {self.above} s")

    def _tell(self, second: int, before: Rung) -> None:
        view = self.heat.view
        self.outcome.rungs.add(view.rung.name)
        line = (
            f"{second} s, {self.card.celsius:.1f} °C, {before.name} -> {view.rung.name}, {view.admits}: {view.reason}"
        )
        if self.course.show:
            print(line)
        if self.course.digest:
            self.trace.append(line)


def simulate(seed: int, course: Course) -> Outcome:
    """One card's afternoon. Raises Violation."""
    dice = random.Random(f"heat {seed}")
    cap = dice.choice((60.0, 70.0, 70.0, 83.0))
    card = Card.drawn(dice, cap)
    heat = Heat(UUID, 0, cap, card.abilities, course.limits)
    afternoon = Afternoon(seed, course, cap, card, heat)
    for second in range(HOURS * 3600):
        afternoon.step(second)
    afternoon.outcome.owner_changes = card.owner_changes
    if course.digest:
        afternoon.outcome.digest = hashlib.sha256("\n".join(afternoon.trace).encode()).hexdigest()[:16]
    return afternoon.outcome
