"""Drawing some of many, without a random number of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Dice(Protocol):
    """Draws; `random.Random` is one."""

    def sample(self, population: range, k: int) -> Sequence[int]:
        """`k` different members of a range that has at least as many."""
        ...


class InTurn:
    """Goes round: where nobody else draws from the same, and for tests."""

    def __init__(self) -> None:
        self._next = 0

    def sample(self, population: range, k: int) -> Sequence[int]:
        """The next `k`."""
        first, self._next = self._next, self._next + k
        return [population[at % len(population)] for at in range(first, first + k)]
