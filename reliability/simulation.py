"""The simulated cluster, run as the program that it is: many seeds, and the bugs that it must find."""

from __future__ import annotations

from dataclasses import dataclass

from reliability.results import Row


@dataclass(frozen=True, slots=True)
class Simulated:
    violations: int = 0


async def run(seeds: int, first: int) -> Simulated:
    raise NotImplementedError


def rows(found: Simulated) -> tuple[Row, ...]:
    return ()


def failed(found: Simulated) -> tuple[str, ...]:
    return ()
