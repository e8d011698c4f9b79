"""`python -m simulation.terms`: heat on simulated cards; with `--schedules`, hours against every minute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from simulation import many
from simulation.terms.heat import HOURS, Course, Outcome, Violation, simulate
from simulation.terms.hours import Answer, Mismatch, answered
from simulation.terms.planted import Bug, limits_with


@dataclass(slots=True)
class Heat:
    """What all cards so far came to."""

    hours: int = 0
    admitted: int = 0
    admitted_unforeseen: int = 0
    admitting_hours: float = 0.0
    excursions: int = 0
    #: Seconds above cap + 1 in a row: with a fan that turns, at work, and with one that stands still.
    above_seconds_max: int = 0
    above_working_seconds_max: int = 0
    above_fanless_seconds_max: int = 0
    flips_an_hour_max: int = 0
    #: Power limits that owners changed.
    owner_changes: int = 0
    rungs: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One card more."""
        self.hours += HOURS
        self.admitted += outcome.admitted
        self.admitted_unforeseen += outcome.admitted_unforeseen
        self.admitting_hours += outcome.admitting_seconds / 3600
        self.excursions += outcome.excursions
        self.above_seconds_max = max(self.above_seconds_max, outcome.above_seconds_max)
        self.above_working_seconds_max = max(self.above_working_seconds_max, outcome.above_working_seconds_max)
        self.above_fanless_seconds_max = max(self.above_fanless_seconds_max, outcome.above_fanless_seconds_max)
        self.flips_an_hour_max = max(self.flips_an_hour_max, outcome.flips_an_hour_max)
        self.owner_changes += outcome.owner_changes
        self.rungs = sorted({*self.rungs, *outcome.rungs})

    def line(self) -> str:
        """In words."""
        return (
            f"{self.hours:,} hours, {self.admitting_hours:,.0f} of them open, "
            f"{self.admitted:,} admitted and none at cap - 2 "
            f"(in the second in which a fan failed {self.admitted_unforeseen}), "
            f"{self.excursions:,} times above cap + 1 for at most {self.above_seconds_max} s "
            f"(at work {self.above_working_seconds_max} s, without a fan {self.above_fanless_seconds_max} s), "
            f"at most {self.flips_an_hour_max} changes an hour, "
            f"{self.owner_changes:,} limits changed by owners and none exceeded"
        )


@dataclass(slots=True)
class Schedules:
    """What all questions so far came to."""

    open: int = 0
    changing: int = 0

    def add(self, answer: Answer) -> None:
        """One question more."""
        self.open += answer.open
        self.changing += answer.changes

    def line(self) -> str:
        """In words."""
        return f"as one who looks at every minute, {self.open:,} open, {self.changing:,} of them with a change to come"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 where something that must hold did not."""
    parser = many.parser("python -m simulation.terms", __doc__, Bug)
    parser.add_argument(
        "--hours", type=_hours, metavar="N", help=f"simulated hours, {HOURS} a seed (instead of --seeds)"
    )
    parser.add_argument("--schedules", action="store_true", help="hours instead of heat: one random question a seed")
    options = parser.parse_args(arguments)
    if options.schedules:
        return many.run(many.Simulation("schedules", answered, Mismatch), Schedules(), options)
    if options.hours:
        options.seeds = -(-options.hours // HOURS)
    course = Course(limits_with(options.plant), options.plant or "", digest=options.seeds == 1, show=options.trace)
    return many.run(many.Simulation("heat", partial(simulate, course=course), Violation), Heat(), options)


def _hours(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of hours above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
