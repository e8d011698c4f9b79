"""`python -m simulation`: run seeds of the simulated network, and say in one line what came of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from simulation import many
from simulation.cluster import Course, Outcome, Violation, simulate
from simulation.planted import Bug


@dataclass(slots=True)
class Figures:
    """What all runs so far came to."""

    requests: int = 0
    finished: int = 0
    errors: int = 0
    left: int = 0
    attempts: int = 0
    hedges: int = 0
    continuations: int = 0
    by_ids: int = 0
    faults: int = 0

    def add(self, outcome: Outcome) -> None:
        """One run more."""
        self.requests += outcome.requests
        self.finished += outcome.finished
        self.errors += outcome.errors
        self.left += outcome.left
        self.attempts += outcome.attempts
        self.hedges += outcome.hedges
        self.continuations += outcome.continuations
        self.by_ids += outcome.by_ids
        self.faults += outcome.faults

    def line(self) -> str:
        """In words."""
        return f"{self.requests:,} requests, {self.continuations:,} continuations, {self.hedges:,} hedges"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 where something that must hold did not."""
    parser = many.parser("python -m simulation", __doc__, Bug)
    parser.add_argument("--minutes", type=float, default=Course().minutes, metavar="M", help="of callers and faults")
    options = parser.parse_args(arguments)
    course = Course(options.minutes, options.plant, digest=options.seeds == 1, show=options.trace)
    simulation = many.Simulation("simulation", partial(simulate, course=course), Violation)
    return many.run(simulation, Figures(), options, minutes=options.minutes)


if __name__ == "__main__":
    sys.exit(main())
