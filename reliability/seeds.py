"""Simulations, run as the programs that they are: many seeds, and the planted bugs that they have to find."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability.results import Row

ROOT = Path(__file__).resolve().parents[1]
#: Each planted bug has to be found within so many seeds.
PLANTED_SEEDS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Program:
    """`python -m MODULE`, and the bugs that its `--plant` knows and that have to be found."""

    module: str
    planted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the seeds came to."""

    first: int
    seeds: int
    violating: tuple[int, ...]
    #: Whatever else the program adds up, by name.
    figures: Mapping[str, Any] = field(default_factory=dict)
    #: Each planted bug, and how many seeds it took to find it; None where it was not found.
    found_after: tuple[tuple[str, int | None], ...] = ()

    @property
    def range(self) -> str:
        """In words."""
        return f"seeds {self.first} to {self.first + self.seeds - 1}"


async def run(program: Program, seeds: int, first: int) -> Simulated:
    """Run the seeds, then look for each bug. Raises RuntimeError where the simulation itself fails."""
    told = await _run(program, "--seed", str(first), "--seeds", str(seeds), loud=True)
    found_after: list[tuple[str, int | None]] = []
    for bug in program.planted:
        hunt = await _run(program, "--seeds", str(PLANTED_SEEDS_MAX), "--plant", bug, "--first", loud=False)
        found_after.append((bug, min(hunt["violating"], default=None)))
    return Simulated(first, told["seeds"], tuple(told["violating"]), told, tuple(found_after))


async def _run(program: Program, *arguments: str, loud: bool) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program.module, "--json", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if loud else asyncio.subprocess.DEVNULL,
    )
    printed, _ = await process.communicate()
    if process.returncode not in (0, 1):
        command = f"python -m {program.module} {' '.join(arguments)}"
        raise RuntimeError(f"`{command}` ended with status {process.returncode}")
    told: dict[str, Any] = json.loads(printed)
    return told


def planted_row(promise: str, found: Simulated) -> Row:
    """That the bugs were found."""
    missed = [bug for bug, seeds in found.found_after if seeds is None]
    took = ", ".join(f"{bug} after {seeds}" for bug, seeds in found.found_after if seeds is not None)
    return Row(
        promise=promise,
        tried=f"each within {PLANTED_SEEDS_MAX:,} seeds",
        n=len(found.found_after),
        failures=len(missed),
        seen=f"seeds it took: {took}" if took else "",
    )


def failed(program: Program, found: Simulated) -> tuple[str, ...]:
    """What went wrong, with the command that shows it."""
    command = f"python -m {program.module}"
    violated = [f"a law was broken  [{command} --seed {seed}]" for seed in found.violating]
    missed = [
        f"a planted bug was not found  [{command} --seeds {PLANTED_SEEDS_MAX} --plant {bug}]"
        for bug, seeds in found.found_after
        if seeds is None
    ]
    return (*violated, *missed)
