"""`python -m simulation`: run seeds of the simulated network, and say in one line what came of them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from simulation.cluster import Course
from simulation.many import Sum, processors, run_all
from simulation.planted import Bug

#: Shorter runs say nothing of their progress, longer ones this often.
PROGRESS_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 where something that must hold did not."""
    options = _parser().parse_args(arguments)
    alone = options.seeds == 1
    course = Course(options.minutes, options.plant, digest=alone, show=options.trace)
    seeds = range(options.seed, options.seed + options.seeds)
    total = Sum()
    told_at = time.monotonic()
    for seed, result in run_all(seeds, course, 1 if alone or options.trace else options.jobs):
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
        print(json.dumps({"schema": 1, "first_seed": options.seed, "minutes": options.minutes, **asdict(total)}))
    else:
        print(total.line(options.seed) + (f", trace {total.digest}" if total.digest else ""))
    return 1 if total.violating else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many, counting up (default: 1)")
    parser.add_argument("--minutes", type=float, default=Course().minutes, metavar="M", help="of callers and faults")
    parser.add_argument("--plant", type=Bug, choices=list(Bug), default=None, metavar="BUG", help=_bugs())
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--jobs", type=_positive, default=processors(), metavar="N", help="processes (default: CPUs)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _bugs() -> str:
    return "a bug that must be found: " + ", ".join(Bug)


if __name__ == "__main__":
    sys.exit(main())
