"""How fast engines have been: what a request may be expected to take there. Errors count as slow.

An engine is measured against what is usual for its model at the time: in a crowd all are slow, and the one that was
asked last in it must not be taken for the slowest when the crowd is gone.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: Of the newest sample in an engine's running means: a handful make up most of it.
WEIGHT = 0.3
#: The same of what is usual for a model: slower, so that an engine that changes is not what it is measured against.
USUAL_WEIGHT = 0.1
#: Tokens of the answer by which engines are compared: their first token matters as much as their pace.
TOKENS = 100
#: One that fails every time counts as so many times slower: nobody prefers a node that fails at once. Whoever fails
#: three times in a row is left alone by its breaker; this is for those that fail now and then.
FAILING_RATIO = 30.0
#: A failure counts half after so long: one alone is forgotten within a minute.
FAILING_HALF_LIFE_SECONDS = 10.0
#: After so long without a sample, what was learnt counts half: who was slow may be fast again.
HALF_LIFE_SECONDS = 60.0
#: First tokens by which a model's usual waiting time is known; as many as are remembered at most.
FIRST_TOKENS_MIN, FIRST_TOKENS_MAX = 20, 256
#: A first token is late once it takes longer than nearly all others did, and this many times as long as half of them:
#: where all are much alike, the slowest of them is not worth a second try.
LATE_RATIO = 1.5
#: New samples after which the usual waiting time is worked out anew.
FIRST_TOKENS_STEP = 8


@dataclass(slots=True)
class Usual:
    """Running means over all engines of a model, in seconds; None where nothing is known."""

    #: Until the first token, and from one token to the next.
    first: float | None = None
    token: float | None = None

    def first_token(self, seconds: float) -> None:
        """Some request has waited so long for its first token."""
        self.first = _mean(self.first, seconds, USUAL_WEIGHT)

    def pace(self, seconds: float) -> None:
        """Some answer took so long from one token to the next."""
        self.token = _mean(self.token, seconds, USUAL_WEIGHT)

    @property
    def seconds(self) -> float | None:
        """What an answer of TOKENS tokens takes."""
        if self.first is None and self.token is None:
            return None
        return (self.first or 0.0) + TOKENS * (self.token or 0.0)


class Speed:
    """One engine, as running means of how many times the usual it takes; None where nothing is known."""

    __slots__ = ("_failed_at", "_failing", "_first", "_sampled_at", "_token")

    def __init__(self) -> None:
        self._first: float | None = None
        self._token: float | None = None
        #: How much of what it is asked fails, 0 to 1, as it was when one last did.
        self._failing = 0.0
        self._failed_at = 0.0
        self._sampled_at = 0.0

    def first_token(self, now: float, seconds: float, usual: Usual) -> None:
        """A request has waited so long for its first token; `usual`: before this one."""
        self._first = _mean(self._first, _ratio(seconds, usual.first), WEIGHT)
        self.answered()
        self._sampled_at = now

    def pace(self, now: float, seconds: float, usual: Usual) -> None:
        """An answer took so long from one token to the next; `usual`: before this one."""
        self._token = _mean(self._token, _ratio(seconds, usual.token), WEIGHT)
        self._sampled_at = now

    def outrun(self, now: float, waited: float, usual: Usual) -> None:
        """A request has waited so long in vain: it takes at least that, and its pace is taken to be as much slower."""
        if (ratio := _ratio(waited, usual.first)) > 1.0:
            self._first, self._token = max(self._first or 0.0, ratio), max(self._token or 0.0, ratio)
            self._sampled_at = now

    def answered(self) -> None:
        """A request went well."""
        self._failing -= WEIGHT * self._failing

    def failed(self, now: float) -> None:
        """A request failed."""
        failing = self._failing * self._fading(now)
        self._failing, self._failed_at = failing + WEIGHT * (1.0 - failing), now

    def _fading(self, now: float) -> float:
        return math.exp2((self._failed_at - now) / FAILING_HALF_LIFE_SECONDS)

    def first_token_seconds(self, usual: Usual) -> float | None:
        """How long requests wait for their first token, as things are; None where nothing is known."""
        return None if self._first is None or usual.first is None else self._first * usual.first

    def expected(self, now: float, usual: Usual) -> float:
        """What an answer may be expected to take, in seconds. One of which nothing is known is taken for a usual one,
        and what was learnt long ago counts less."""
        failing = 1.0 + FAILING_RATIO * self._failing * self._fading(now) if self._failing else 1.0
        among_all = usual.seconds
        if among_all is None:
            return failing
        first, token = (1.0 if ratio is None else ratio for ratio in (self._first, self._token))
        own = first * (usual.first or 0.0) + token * TOKENS * (usual.token or 0.0)
        fading = math.exp2((self._sampled_at - now) / HALF_LIFE_SECONDS)
        return failing * (among_all + (own - among_all) * fading)


def _mean(known: float | None, sample: float, weight: float) -> float:
    return sample if known is None else known + weight * (sample - known)


def _ratio(seconds: float, usual: float | None) -> float:
    return seconds / usual if usual else 1.0


class FirstTokens:
    """How long requests of one model wait for their first token."""

    __slots__ = ("_due", "_late", "_samples")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=FIRST_TOKENS_MAX)
        self._late: float | None = None
        self._due = FIRST_TOKENS_MIN

    def add(self, seconds: float) -> None:
        """One request waited so long."""
        self._samples.append(seconds)
        self._due -= 1
        if self._due <= 0:
            self._due = FIRST_TOKENS_STEP
            ascending = sorted(self._samples)
            usual, most = ascending[len(ascending) // 2], ascending[len(ascending) * 95 // 100]
            self._late = max(most, LATE_RATIO * usual)

    @property
    def late(self) -> float | None:
        """What has taken longer is late, in seconds; None while too few are known."""
        return self._late
