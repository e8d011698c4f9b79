"""`python -m simulation.replicas`: run seeds of the replica reconciler, and say in one line what came of them."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

from simulation.replicas.cluster import Course, Outcome, Violation, simulate
from simulation.replicas.planted import Bug

#: Shorter runs say nothing of their progress, longer ones this often.
PROGRESS_SECONDS = 2.0
#: Seeds that one process takes at a time.
PORTION = 25
#: Violations that are told in full; more of them are likely the same one.
TOLD_MAX = 3


@dataclass(slots=True)
class Sum:
    """What all runs so far came to."""

    seeds: int = 0
    nodes: int = 0
    node_hours: float = 0.0
    changes: int = 0
    #: The most that one node was asked for in one hour.
    changes_per_hour_max: int = 0
    causes: int = 0
    announced: int = 0
    #: Seeds that violated something, and what was said of the first of them.
    violating: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    #: Of the last run, where it was asked for.
    digest: str = ""

    def add(self, seed: int, result: Outcome | str) -> None:
        """One run's outcome, or the violation that ended it."""
        self.seeds += 1
        if isinstance(result, str):
            self.violating.append(seed)
            if len(self.told) < TOLD_MAX:
                self.told.append(result)
            return
        self.nodes += result.nodes
        self.node_hours += result.node_hours
        self.changes += result.changes
        self.changes_per_hour_max = max(self.changes_per_hour_max, result.changes_per_hour_max)
        self.causes += result.causes
        self.announced += result.announced
        self.digest = result.digest

    def line(self, first: int) -> str:
        """In one line."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds:,} seeds"
        violations = "1 violation" if len(self.violating) == 1 else f"{len(self.violating):,} violations"
        which = f"seed {first}" if self.seeds == 1 else f"seeds {first}..{first + self.seeds - 1}"
        per_hour = self.changes / self.node_hours if self.node_hours else 0.0
        return (
            f"replicas: {seeds}, {self.nodes:,} nodes, {self.causes:,} causes, {self.announced:,} losses announced in "
            f"time, {per_hour:.2f} changes per node and hour (at most {self.changes_per_hour_max}), "
            f"{violations} ({which})"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 where something that must hold did not."""
    options = _parser().parse_args(arguments)
    alone = options.seeds == 1
    course = Course(options.plant, digest=alone, show=options.trace)
    seeds = range(options.seed, options.seed + options.seeds)
    total = Sum()
    told_at = time.monotonic()
    for seed, result in _run_all(seeds, course, 1 if alone or options.trace else options.jobs):
        total.add(seed, result)
        if options.first and total.violating:
            break
        if total.seeds < options.seeds and (now := time.monotonic()) - told_at > PROGRESS_SECONDS:
            told_at = now
            print(f"{total.seeds:,} of {options.seeds:,} seeds", file=sys.stderr)
    for violation in total.told:
        print(violation, file=sys.stderr, end="\n\n")
    if rest := total.violating[len(total.told) :]:
        print(f"and in seeds {', '.join(map(str, rest[:20]))}{' …' if len(rest) > 20 else ''}", file=sys.stderr)
    if options.json:
        print(json.dumps({"schema": 1, "first_seed": options.seed, **asdict(total)}))
    else:
        print(total.line(options.seed) + (f", trace {total.digest}" if total.digest else ""))
    return 1 if total.violating else 0


def _run_all(seeds: Iterable[int], course: Course, processes: int) -> Iterator[tuple[int, Outcome | str]]:
    """Each seed's outcome, or the violation that ended it, in order."""
    if processes == 1:
        for seed in seeds:
            yield seed, _one(seed, course)
        return
    portions = iter(partial(lambda it: list(itertools.islice(it, PORTION)), iter(seeds)), [])
    with ProcessPoolExecutor(processes) as pool:
        for portion in pool.map(partial(_several, course=course), portions):
            yield from portion


def _several(seeds: list[int], course: Course) -> list[tuple[int, Outcome | str]]:
    return [(seed, _one(seed, course)) for seed in seeds]


def _one(seed: int, course: Course) -> Outcome | str:
    try:
        return simulate(seed, course)
    except Violation as violation:
        return str(violation)


def _parser() -> argparse.ArgumentParser:
    processors = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m simulation.replicas", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many, counting up (default: 1)")
    bugs = "a bug that must be found: " + ", ".join(Bug)
    parser.add_argument("--plant", type=Bug, choices=list(Bug), default=None, metavar="BUG", help=bugs)
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--jobs", type=_positive, default=processors, metavar="N", help="processes (default: CPUs)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
