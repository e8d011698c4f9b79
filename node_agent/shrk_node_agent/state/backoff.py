"""How long to wait before the next try. Pure: the random number is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, with full jitter: when a coordinator comes back, its nodes must not all dial at once."""

    first_seconds: float
    seconds_max: float

    def delay(self, failures: int, fraction: float) -> float:
        """Seconds to wait after this many failures in a row; `fraction` is random in [0, 1).

        The first retry is immediate: most links drop for a moment only.
        """
        if failures <= 1:
            return 0.0
        ceiling = min(self.seconds_max, self.first_seconds * 2.0 ** min(failures - 2, 30))
        return ceiling * fraction

    def steps(self, failures: int) -> float:
        """The same without jitter and without the immediate retry, for things nobody else waits for."""
        return min(self.seconds_max, self.first_seconds * 2.0 ** min(max(failures - 1, 0), 30))


#: A link that lived this long was a good one. Shorter ones count as failures: a coordinator that welcomes its nodes
#: and drops them would otherwise be dialled without a pause, by all of them.
STEADY_LINK_SECONDS = 10.0


def dial_failures(before: int, lived_seconds: float) -> int:
    """Failures in a row, now that a link ended which lived this long after its welcome (0: it had none)."""
    return 1 if lived_seconds >= STEADY_LINK_SECONDS else before + 1


#: Dialling a coordinator: quick at first, half a minute at most.
DIAL = Backoff(first_seconds=0.5, seconds_max=30.0)
#: Starting an engine again: it may need the memory that the last one still holds.
ENGINE = Backoff(first_seconds=1.0, seconds_max=60.0)
#: Starts in a row of one engine that came to no token. By then it had 15 seconds of pauses and five full loads of its
#: weights: what has not passed needs its owner, and each further try takes the GPU's memory and the disk's time.
BARREN_STARTS_MAX = 5
