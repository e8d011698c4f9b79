"""What callers ask, and how they behave; each request's body tells the engine all that it needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from random import Random

import orjson


class Kind(Enum):
    """How an answer is wanted."""

    STREAMED = "streamed"
    WHOLE = "whole"
    #: Streamed, and sent only when it is whole.
    BUFFERED = "buffered"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    number: int
    request_id: bytes
    model: str
    kind: Kind
    prompt: int
    seed: int
    tokens_max: int
    #: Bytes that each event carries beside its tokens.
    padding: int
    #: Bytes that the body carries beside what it says.
    body_padding: int
    #: The engine will refuse it: the caller's own mistake.
    bad: bool
    #: Engines crash when they read it.
    deadly: bool
    #: Nothing in it keeps it from being continued by ids.
    by_ids: bool
    include_usage: bool
    #: Of its conversation; 0: it belongs to none.
    affinity: int
    #: Tokens after which the caller leaves (0: before the first), or None; and after how many seconds, or None.
    leaves_after: int | None
    patience: float | None
    #: Bytes a second that the caller reads; nought: it takes all at once.
    reads: float

    def body(self) -> bytes:
        """As it travels to the engine."""
        said = {"prompt": self.prompt, "tokens_max": self.tokens_max, "padding": self.padding}
        flags = {"bad": self.bad, "deadly": self.deadly}
        return orjson.dumps(said | flags) + b" " * self.body_padding

    @property
    def digest(self) -> bytes:
        """Of what its caller sent: the same for the same prompt."""
        return blake2b(self.body(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine reads off a body."""

    prompt: int
    tokens_max: int
    padding: int
    bad: bool
    deadly: bool

    @classmethod
    def of(cls, body: bytes) -> Prompt:
        """Read it."""
        return cls(**orjson.loads(body))


def draw(rng: Random, number: int, models: list[str]) -> Ask:
    """One request, of whatever kind."""
    kind = rng.choices((Kind.STREAMED, Kind.WHOLE, Kind.BUFFERED), (8, 2, 1))[0]
    heavy = rng.random() < 0.04
    leaves = rng.random() < 0.08
    return Ask(
        number=number,
        request_id=rng.getrandbits(128).to_bytes(16, "big"),
        model=rng.choice(models),
        kind=kind,
        prompt=rng.randrange(1 << 30),
        seed=rng.getrandbits(31),
        tokens_max=rng.choice((2, 8, 16, 24)),
        padding=rng.choice((30_000, 70_000, 150_000)) if heavy else 0,
        body_padding=200_000 if rng.random() < 0.01 else 0,
        bad=rng.random() < 0.03,
        deadly=False,
        by_ids=rng.random() < 0.85,
        include_usage=rng.random() < 0.5,
        affinity=rng.choice((0, 0, 1, 2, 3)),
        leaves_after=rng.randrange(6) if leaves else None,
        patience=rng.expovariate(0.5) if rng.random() < 0.03 else None,
        reads=rng.choice((0.0, 20_000.0, 100_000.0)) if heavy else 0.0,
    )
