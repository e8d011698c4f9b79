"""`python -m simulation.replicas`: run seeds of the replica reconciler, and say in one line what came of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from simulation import many
from simulation.replicas.cluster import Course, Outcome, Violation, simulate
from simulation.replicas.planted import Bug


@dataclass(slots=True)
class Figures:
    """What all runs so far came to."""

    nodes: int = 0
    node_hours: float = 0.0
    changes: int = 0
    #: The most that one node was asked for in one hour.
    changes_per_hour_max: int = 0
    causes: int = 0
    announced: int = 0

    def add(self, outcome: Outcome) -> None:
        """One run more."""
        self.nodes += outcome.nodes
        self.node_hours += outcome.node_hours
        self.changes += outcome.changes
        self.changes_per_hour_max = max(self.changes_per_hour_max, outcome.changes_per_hour_max)
        self.causes += outcome.causes
        self.announced += outcome.announced

    def line(self) -> str:
        """In words."""
        per_hour = self.changes / self.node_hours if self.node_hours else 0.0
        return (
            f"{self.nodes:,} nodes, {self.causes:,} causes, {self.announced:,} losses announced in time, "
            f"{per_hour:.2f} changes per node and hour (at most {self.changes_per_hour_max})"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 where something that must hold did not."""
    options = many.parser("python -m simulation.replicas", __doc__, Bug).parse_args(arguments)
    course = Course(options.plant, digest=options.seeds == 1, show=options.trace)
    return many.run(many.Simulation("replicas", partial(simulate, course=course), Violation), Figures(), options)


if __name__ == "__main__":
    sys.exit(main())
