"""Arithmetic of counting: percentiles, and what "0 of n" proves. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gaps:
    """Pauses that faults cost callers, in milliseconds."""

    n: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Gaps | None:
        """None where there were none."""
        if not seconds:
            return None
        ascending = sorted(seconds)
        p50, p99 = (round(1000 * percentile(ascending, share), 1) for share in (0.5, 0.99))
        return cls(len(ascending), p50, p99)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that `share` (0 to 1) of them do not exceed; at least one is needed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def bound(n: int, failures: int) -> float | None:
    """With 95 % confidence failures are rarer than this share; None where some were seen, or nothing was tried.

    The rule of three: at this rate, n tries would have shown none only once in twenty.
    """
    return min(1.0, 3 / n) if n and not failures else None
