"""Many seeds of a simulation, one after another or on several processors at once; what they came to together.

What is simulated is an argument: `python -m simulation` and `python -m simulation.replicas` both run here.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

#: Shorter runs say nothing of their progress, longer ones this often.
PROGRESS_SECONDS = 2.0
#: Seeds that one process takes at a time: a second or two, so that progress is seen and a violation heard of soon.
PORTION = 25
#: Violations that are told in full; more of them are likely the same one.
TOLD_MAX = 3
#: Violating seeds that are named beside those.
NAMED_MAX = 20


class Outcome(Protocol):
    """What one run came to."""

    @property
    def digest(self) -> str:
        """Of all events; where it was asked for."""


T = TypeVar("T", bound=Outcome)
T_contra = TypeVar("T_contra", bound=Outcome, contravariant=True)


class Figures(Protocol[T_contra]):
    """What outcomes come to together. A dataclass: its fields are printed as JSON."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def add(self, outcome: T_contra) -> None:
        """One run more."""

    def line(self) -> str:
        """In words."""


@dataclass(frozen=True, slots=True)
class Simulation(Generic[T]):
    """What is run."""

    #: As its line begins.
    name: str
    #: One seed to its end; it goes to other processes, so it is a module's own or a `partial` of that.
    simulate: Callable[[int], T]
    #: What `simulate` raises where something that must hold did not.
    violation: type[Exception]


@dataclass(slots=True)
class Sum(Generic[T]):
    """What all runs so far came to."""

    figures: Figures[T]
    seeds: int = 0
    #: Seeds that violated something, and what was said of the first of them.
    violating: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    #: Of the last run, where it was asked for.
    digest: str = ""

    def add(self, seed: int, result: T | str) -> None:
        """One run's outcome, or the violation that ended it."""
        self.seeds += 1
        if isinstance(result, str):
            self.violating.append(seed)
            if len(self.told) < TOLD_MAX:
                self.told.append(result)
            return
        self.figures.add(result)
        self.digest = result.digest

    def line(self, name: str, first: int) -> str:
        """In one line."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds:,} seeds"
        violations = "1 violation" if len(self.violating) == 1 else f"{len(self.violating):,} violations"
        which = f"seed {first}" if self.seeds == 1 else f"seeds {first}..{first + self.seeds - 1}"
        trace = f", trace {self.digest}" if self.digest else ""
        return f"{name}: {seeds}, {self.figures.line()}, {violations} ({which}){trace}"

    def as_json(self) -> dict[str, Any]:
        """All of it, flat."""
        told = {"violating": self.violating, "told": self.told, "digest": self.digest}
        return {"seeds": self.seeds, **asdict(self.figures), **told}


def parser(program: str, description: str | None, bugs: type[StrEnum]) -> argparse.ArgumentParser:
    """The options that all simulations have; `bugs` are what can be planted."""
    made = argparse.ArgumentParser(prog=program, description=description)
    made.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    made.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many, counting up (default: 1)")
    bugs_listed = "a bug that must be found: " + ", ".join(bugs)
    made.add_argument("--plant", type=bugs, choices=list(bugs), default=None, metavar="BUG", help=bugs_listed)
    made.add_argument("--trace", action="store_true", help="print everything that happens")
    made.add_argument("--first", action="store_true", help="stop at the first violation")
    processors = len(os.sched_getaffinity(0))
    made.add_argument("--jobs", type=_positive, default=processors, metavar="N", help="processes (default: CPUs)")
    made.add_argument("--json", action="store_true", help="print the figures as JSON")
    return made


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(simulation: Simulation[T], figures: Figures[T], options: argparse.Namespace, **told: object) -> int:
    """Run what `parser`'s options ask for, and print what came of it; the exit code of the command.

    It is 1 where something that must hold did not. `told` goes into the JSON as it is.
    """
    seeds = range(options.seed, options.seed + options.seeds)
    total = Sum(figures)
    told_at = time.monotonic()
    for seed, result in _run_all(seeds, simulation, 1 if options.seeds == 1 or options.trace else options.jobs):
        total.add(seed, result)
        if options.first and total.violating:
            break
        if total.seeds < options.seeds and (now := time.monotonic()) - told_at > PROGRESS_SECONDS:
            told_at = now
            print(f"{total.seeds:,} of {options.seeds:,} seeds", file=sys.stderr)
    for violation in total.told:
        print(violation, file=sys.stderr, end="\n\n")
    if rest := total.violating[len(total.told) :]:
        named = ", ".join(map(str, rest[:NAMED_MAX]))
        print(f"and in seeds {named}{' …' if len(rest) > NAMED_MAX else ''}", file=sys.stderr)
    if options.json:
        print(json.dumps({"schema": 1, "first_seed": options.seed, **told, **total.as_json()}))
    else:
        print(total.line(simulation.name, options.seed))
    return 1 if total.violating else 0


def _run_all(seeds: Iterable[int], simulation: Simulation[T], processes: int) -> Iterator[tuple[int, T | str]]:
    """Each seed's outcome, or the violation that ended it, in order."""
    if processes == 1:
        for seed in seeds:
            yield seed, _one(seed, simulation)
        return
    portions = iter(partial(lambda it: list(itertools.islice(it, PORTION)), iter(seeds)), [])
    with ProcessPoolExecutor(processes) as pool:
        for portion in pool.map(partial(_several, simulation=simulation), portions):
            yield from portion


def _several(seeds: list[int], simulation: Simulation[T]) -> list[tuple[int, T | str]]:
    return [(seed, _one(seed, simulation)) for seed in seeds]


def _one(seed: int, simulation: Simulation[T]) -> T | str:
    # A run leaves cycles behind and is over before they matter: they are collected between runs.
    gc.disable()
    try:
        return simulation.simulate(seed)
    except simulation.violation as violation:
        return str(violation)
    finally:
        gc.enable()
