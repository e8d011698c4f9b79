"""`python -m reliability`: try the promises on real processes; with --full also write RELIABILITY.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from reliability import report, results
from reliability.experiments import EXPERIMENTS, Progress, Wish
from reliability.matrix import Case
from reliability.results import Origin, Outcome

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "RELIABILITY.md"
RESULTS = ROOT / "reliability" / "results.json"
#: Between two lines about how far an experiment is.
TELL_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked; the exit code is 1 where a promise was broken."""
    options = _parser().parse_args(arguments)
    # The coordinator runs in this process; what it says of every lost node is what is being tried here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # Whoever ends this, and however politely: the network is taken down first.
    # A shell's background job ignores SIGINT, which asyncio takes over only from Python's own handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    names = ("matrix",) if options.case else options.only
    wish = Wish(options.seed, options.full, tuple(options.case or ()))
    outcomes = []
    for name in names:
        outcomes.append(asyncio.run(_measure(name, wish)))
        print(report.summary(outcomes[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
        if options.full and not options.case:
            _write(outcomes[-1])
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return int(any(outcome.failures for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a sample of everything (the default)")
    size.add_argument("--full", action="store_true", help="everything, and write RELIABILITY.md")
    every = ",".join(EXPERIMENTS)
    parser.add_argument("--only", type=_names, default=tuple(EXPERIMENTS), metavar="NAME,…", help=f"default: {every}")
    parser.add_argument("--case", type=_case, action="append", metavar="FAULT/SHAPE/POSITION", help="of the matrix")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(EXPERIMENTS):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)} is none of {', '.join(EXPERIMENTS)}")
    return names


def _case(text: str) -> Case:
    try:
        return Case.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _measure(name: str, wish: Wish) -> Outcome:
    began, origin = time.monotonic(), _origin()
    print(f"reliability: {name} begins", file=sys.stderr, flush=True)
    found = await EXPERIMENTS[name](wish, _teller(name))
    if (now := _origin()) != origin:
        # Processes that were started on the way ran something else than the first ones.
        origin = replace(now, commit=f"{origin.commit}, then {now.commit}")
    return Outcome(name, wish.seed, round(time.monotonic() - began, 1), origin, found.rows, found.failed)


def _teller(name: str) -> Progress:
    told_at, told = time.monotonic(), 0

    def tell(done: int, of: int, failed: Sequence[str]) -> None:
        nonlocal told_at, told
        for failure in failed[told:]:
            print(f"reliability: FAILED {failure}", file=sys.stderr, flush=True)
        told = len(failed)
        if done == of or time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            print(f"reliability: {name} {done:,} of {of:,}, {told} failed", file=sys.stderr, flush=True)

    return tell


def _write(outcome: Outcome) -> None:
    """Replace this experiment's results, keep the others, and write the page anew."""
    outcomes = {**results.read(RESULTS), outcome.experiment: outcome}
    results.write(RESULTS, outcomes)
    PAGE.write_text(report.page(outcomes))


def _origin() -> Origin:
    """What runs; what this program itself wrote on the way changes nothing of it."""
    written = (f":!{path.relative_to(ROOT)}" for path in (PAGE, RESULTS))
    commit, changed = _git("describe", "--always"), _git("status", "--porcelain", "--", ".", *written)
    return Origin(f"{commit}-dirty" if changed else commit, _git("log", "-1", "--format=%cs"), os.cpu_count() or 0)


def _git(*arguments: str) -> str:
    told = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else "unknown"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("reliability: interrupted; everything it started is stopped")
