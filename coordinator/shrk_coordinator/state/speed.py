"""How fast engines have been: what a request may be expected to take there. Errors count as slow."""

from __future__ import annotations

import math
from collections import deque

#: Of the newest sample in a running mean: a handful make up most of it.
WEIGHT = 0.3
#: Tokens of the answer by which engines are compared: their first token matters as much as their pace.
TOKENS = 100
#: What a failure counts as, in seconds until the first token: nobody prefers a node that fails at once.
FAILED_SECONDS = 30.0
#: After so long without a sample, what was learnt counts half: who was slow may be fast again.
HALF_LIFE_SECONDS = 60.0
#: First tokens by which a model's usual waiting time is known; as many as are remembered at most.
FIRST_TOKENS_MIN, FIRST_TOKENS_MAX = 20, 256
#: A first token is late once it takes longer than nearly all others did, and this many times as long as half of them:
#: where all are much alike, the slowest of them is not worth a second try.
LATE_RATIO = 1.5
#: New samples after which the usual waiting time is worked out anew.
FIRST_TOKENS_STEP = 8


class Speed:
    """Running means of one engine, or of all engines of a model."""

    __slots__ = ("_first", "_token", "sampled_at")

    def __init__(self) -> None:
        #: Seconds until the first token, and from one token to the next; None where nothing is known.
        self._first: float | None = None
        self._token: float | None = None
        self.sampled_at = 0.0

    def first_token(self, now: float, seconds: float) -> None:
        """A request has waited so long for its first token, or has waited so long in vain."""
        self._first = seconds if self._first is None else self._first + WEIGHT * (seconds - self._first)
        self.sampled_at = now

    def pace(self, now: float, seconds: float) -> None:
        """An answer took so long from one token to the next."""
        self._token = seconds if self._token is None else self._token + WEIGHT * (seconds - self._token)
        self.sampled_at = now

    def outrun(self, now: float, waited: float, typical: Speed) -> None:
        """A request has waited so long in vain: it takes at least that, and its pace is taken to be as much slower."""
        self._first = max(self._first or 0.0, waited)
        if typical._first and typical._token and waited > typical._first:
            self._token = max(self._token or 0.0, typical._token * waited / typical._first)
        self.sampled_at = now

    def answered(self, typical: Speed) -> None:
        """An answer came in one piece, which shows no first token: what failures were counted as is over."""
        if self._first is not None and typical._first is not None:
            self._first = min(self._first, typical._first)

    def failed(self, now: float) -> None:
        """A request failed."""
        self.first_token(now, FAILED_SECONDS)

    @property
    def first_token_seconds(self) -> float | None:
        """How long requests wait for their first token; None where nothing is known."""
        return self._first

    @property
    def seconds(self) -> float | None:
        """What an answer of TOKENS tokens takes; None where nothing is known."""
        if self._first is None and self._token is None:
            return None
        return (self._first or 0.0) + TOKENS * (self._token or 0.0)

    def expected(self, now: float, typical: Speed) -> float:
        """What an answer may be expected to take, in seconds; `typical`: of all engines of the model.

        One of which nothing is known is taken for a typical one, and what was learnt long ago counts less.
        """
        usual = typical.seconds
        if usual is None:
            return 1.0
        first = typical._first if self._first is None else self._first
        token = typical._token if self._token is None else self._token
        own = (first or 0.0) + TOKENS * (token or 0.0)
        return usual + (own - usual) * math.exp2((self.sampled_at - now) / HALF_LIFE_SECONDS)


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
