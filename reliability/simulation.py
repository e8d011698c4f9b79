"""The simulated cluster, run as the program that it is: many seeds, and the planted bugs that it has to find."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.results import Row

ROOT = Path(__file__).resolve().parents[1]
#: As `--plant` of the simulation names them.
PLANTED = ("loser-never-released", "stale-frame-accepted", "finish-twice")
#: Each of them has to be found within so many seeds.
PLANTED_SEEDS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the seeds came to."""

    first: int
    seeds: int
    requests: int
    #: Those that ended in an error, such as one whose nodes were all lost.
    errors: int
    continuations: int
    by_ids: int
    faults: int
    violating: tuple[int, ...]
    #: Each planted bug, and how many seeds it took to find it; None where it was not found.
    found_after: tuple[tuple[str, int | None], ...] = ()


async def run(seeds: int, first: int) -> Simulated:
    """Run the seeds, then look for each bug. Raises RuntimeError where the simulation itself fails."""
    told = await _simulate("--seed", str(first), "--seeds", str(seeds), loud=True)
    found_after: list[tuple[str, int | None]] = []
    for bug in PLANTED:
        hunt = await _simulate("--seeds", str(PLANTED_SEEDS_MAX), "--plant", bug, "--first", loud=False)
        found_after.append((bug, min(hunt["violating"], default=None)))
    return Simulated(
        first=first,
        seeds=told["seeds"],
        requests=told["requests"],
        errors=told["errors"],
        continuations=told["continuations"],
        by_ids=told["by_ids"],
        faults=told["faults"],
        violating=tuple(told["violating"]),
        found_after=tuple(found_after),
    )


async def _simulate(*arguments: str, loud: bool) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulation", "--json", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if loud else asyncio.subprocess.DEVNULL,
    )
    printed, _ = await process.communicate()
    if process.returncode not in (0, 1):
        raise RuntimeError(f"`python -m simulation {' '.join(arguments)}` ended with status {process.returncode}")
    told: dict[str, Any] = json.loads(printed)
    return told


def rows(found: Simulated) -> tuple[Row, ...]:
    """The laws, and the bugs."""
    last = found.first + found.seeds - 1
    missed = [bug for bug, seeds in found.found_after if seeds is None]
    took = ", ".join(f"{bug} after {seeds}" for bug, seeds in found.found_after if seeds is not None)
    return (
        Row(
            promise="Whatever breaks and whenever, every request ends exactly once, and nothing is lost or told twice",
            tried="the real state machines, cursor and relay on a virtual clock, with faults, callers and networks "
            "drawn from each seed; the laws are checked at every step",
            n=found.seeds,
            failures=len(found.violating),
            seen=f"seeds {found.first} to {last}: {found.requests:,} requests, {found.faults:,} faults, "
            f"{found.continuations:,} continuations ({found.by_ids:,} by ids); {found.errors:,} requests ended in an "
            "error that their caller was told",
        ),
        Row(
            promise="The simulation finds bugs that were planted",
            tried=f"each within {PLANTED_SEEDS_MAX:,} seeds",
            n=len(found.found_after),
            failures=len(missed),
            seen=f"seeds it took: {took}" if took else "",
        ),
    )


def failed(found: Simulated) -> tuple[str, ...]:
    """What went wrong, with the command that shows it."""
    violated: Sequence[str] = [f"a law was broken  [python -m simulation --seed {seed}]" for seed in found.violating]
    missed = [
        f"a planted bug was not found  [python -m simulation --seeds {PLANTED_SEEDS_MAX} --plant {bug}]"
        for bug, seeds in found.found_after
        if seeds is None
    ]
    return (*violated, *missed)
