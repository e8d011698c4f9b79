"""Many seeds, one after another or on several processors at once; what they came to together."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from simulation.cluster import Course, Outcome, Violation, simulate

#: Seeds that one process takes at a time: a second or two, so that progress is seen and a violation heard of soon.
PORTION = 25
#: Violations that are told in full; more of them are likely the same one.
TOLD_MAX = 3


@dataclass(slots=True)
class Sum:
    """What all runs so far came to."""

    seeds: int = 0
    requests: int = 0
    finished: int = 0
    errors: int = 0
    left: int = 0
    attempts: int = 0
    hedges: int = 0
    continuations: int = 0
    by_ids: int = 0
    faults: int = 0
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
        self.requests += result.requests
        self.finished += result.finished
        self.errors += result.errors
        self.left += result.left
        self.attempts += result.attempts
        self.hedges += result.hedges
        self.continuations += result.continuations
        self.by_ids += result.by_ids
        self.faults += result.faults
        self.digest = result.digest

    def line(self, first: int) -> str:
        """In one line."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds:,} seeds"
        violations = "1 violation" if len(self.violating) == 1 else f"{len(self.violating):,} violations"
        which = f"seed {first}" if self.seeds == 1 else f"seeds {first}..{first + self.seeds - 1}"
        return (
            f"simulation: {seeds}, {self.requests:,} requests, {self.continuations:,} continuations, "
            f"{self.hedges:,} hedges, {violations} ({which})"
        )


def run_all(seeds: Iterable[int], course: Course, processes: int) -> Iterator[tuple[int, Outcome | str]]:
    """Each seed's outcome, or the violation that ended it, in order."""
    if processes == 1:
        for seed in seeds:
            yield seed, _one(seed, course)
        return
    portions = iter(partial(lambda it: list(itertools.islice(it, PORTION)), iter(seeds)), [])
    with ProcessPoolExecutor(processes) as pool:
        for portion in pool.map(partial(_several, course=course), portions):
            yield from portion


def processors() -> int:
    """How many of them are ours."""
    return len(os.sched_getaffinity(0))


def _several(seeds: list[int], course: Course) -> list[tuple[int, Outcome | str]]:
    return [(seed, _one(seed, course)) for seed in seeds]


def _one(seed: int, course: Course) -> Outcome | str:
    # A run leaves cycles behind and is over before they matter: they are collected between runs.
    gc.disable()
    try:
        return simulate(seed, course)
    except Violation as violation:
        return str(violation)
    finally:
        gc.enable()
