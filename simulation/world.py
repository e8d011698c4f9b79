"""What everything in one run shares: its time, its dice and its record."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from simulation.clock import Clock
from simulation.trace import Trace


@dataclass(frozen=True, slots=True)
class World:
    """One run."""

    clock: Clock
    rng: Random
    trace: Trace
