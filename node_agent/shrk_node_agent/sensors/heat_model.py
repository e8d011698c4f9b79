"""How a simulated GPU warms and cools: one thermal resistance, one heat capacity, solved exactly between two looks."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeatModel:
    """The defaults are a card of 350 W that reaches 88 °C in a warm room, within minutes."""

    ambient_celsius: float = 25.0
    #: Degrees above the room for each watt, at rest.
    celsius_per_watt: float = 0.18
    #: Joules for each degree: with the resistance above, a time constant of a minute and a half.
    joules_per_celsius: float = 500.0
    idle_watts: float = 20.0
    busy_watts: float = 350.0

    def watts(self, load: float, limit_watts: float | None = None, target_celsius: float | None = None) -> float:
        """What it draws at a load of 0 to 1, under a power limit, and under a target temperature that it keeps to."""
        watts = self.idle_watts + (self.busy_watts - self.idle_watts) * min(max(load, 0.0), 1.0)
        if limit_watts is not None:
            watts = min(watts, limit_watts)
        if target_celsius is not None:
            watts = min(watts, max(self.idle_watts, (target_celsius - self.ambient_celsius) / self.celsius_per_watt))
        return watts

    def after(self, celsius: float, watts: float, seconds: float) -> float:
        """The temperature after `seconds` at constant power."""
        rest = self.ambient_celsius + watts * self.celsius_per_watt
        return rest + (celsius - rest) * math.exp(-seconds / (self.celsius_per_watt * self.joules_per_celsius))
