"""What can be wrong with a line: the settings of one direction, and the words for cutting it. Pure.

A line is one direction through the proxy, of all connections together: `up` carries what the dialler says to the
target, `down` what the target answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, TypeVar

Word = TypeVar("Word", bound=StrEnum)

#: A minute is longer than anybody waits for a byte; who wants more wants `freeze`.
DELAY_MS_MAX = 60_000
#: A TLS handshake of 5 KB takes most of a minute at this rate; below it, nothing but deadlines would be tested.
RATE_BYTES_PER_SECOND_MIN = 100
#: 10 Gbit/s, more than this proxy carries: there, no limit is what is meant.
RATE_BYTES_PER_SECOND_MAX = 1_250_000_000
#: A tebibyte: nobody waits for a cut that comes later.
COUNT_BYTES_MAX = 2**40
#: What is read at once: large enough that a fast line costs few wake-ups, small beside what a pipe may hold.
CHUNK_BYTES_MAX = 64 * 1024
#: A slow line moves in steps of this length, so that its bytes trickle instead of coming by the chunk.
STEP_SECONDS = 0.02


class FaultRefused(ValueError):
    """A setting that cannot be: which `field`, `what` is wrong with it, and the `remedy`."""

    def __init__(self, field: str, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.field = field
        self.what = what
        self.remedy = remedy


class Direction(StrEnum):
    """Which way bytes go, as the dialler sees it."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


class Flow(StrEnum):
    """What becomes of bytes at the far end of a line."""

    PASS = "pass"
    #: Held, and delivered in order once it ends.
    FREEZE = "freeze"
    #: Swallowed, while every connection stays open.
    BLACK_HOLE = "black-hole"


class Cut(StrEnum):
    """Ways to cut connections."""

    RST = "rst"
    CLOSE = "close"
    BLACK_HOLE = "black-hole"
    HALF_OPEN = "half-open"
    FREEZE = "freeze"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class LineFaults:
    """One direction's settings; without arguments, a line without faults. Raises FaultRefused out of range."""

    delay_ms: float = 0
    #: Up to so much more delay, drawn evenly for each chunk. Chunks keep their order all the same.
    jitter_ms: float = 0
    #: Shared by all connections. None is no limit.
    rate_bytes_per_second: int | None = None
    #: A connection is reset once it has delivered so many bytes in this direction. None is never.
    truncate_after_bytes: int | None = None
    flow: Flow = Flow.PASS

    def __post_init__(self) -> None:
        check_number("delay_ms", self.delay_ms, 0, DELAY_MS_MAX)
        check_number("jitter_ms", self.jitter_ms, 0, DELAY_MS_MAX)
        if self.rate_bytes_per_second is not None:
            check_count(
                "rate_bytes_per_second",
                self.rate_bytes_per_second,
                RATE_BYTES_PER_SECOND_MIN,
                RATE_BYTES_PER_SECOND_MAX,
            )
        if self.truncate_after_bytes is not None:
            check_count("truncate_after_bytes", self.truncate_after_bytes, 0, COUNT_BYTES_MAX)

    def changed(self, changes: Mapping[str, object]) -> LineFaults:
        """These settings with some replaced, by name. Raises FaultRefused for a name or a value that cannot be."""
        known = [field.name for field in fields(self)]
        wanted: dict[str, Any] = dict(changes)
        for name in wanted:
            if name not in known:
                raise FaultRefused(name, f"{name} is no setting of a line", f"there are {', '.join(known)}")
        if "flow" in wanted:
            wanted["flow"] = choice(Flow, "flow", wanted["flow"])
        return replace(self, **wanted)

    @property
    def read_bytes_max(self) -> int:
        """How much to read at once, in bytes: on a slow line, what it carries in one step."""
        if self.rate_bytes_per_second is None:
            return CHUNK_BYTES_MAX
        return max(1, min(CHUNK_BYTES_MAX, int(self.rate_bytes_per_second * STEP_SECONDS)))

    def wire_seconds(self, count: int) -> float:
        """How long `count` bytes keep the line busy."""
        return count / self.rate_bytes_per_second if self.rate_bytes_per_second else 0.0

    def delay_seconds(self, fraction: float) -> float:
        """How long a chunk is under way after it has left. `fraction` is random in [0, 1)."""
        return (self.delay_ms + self.jitter_ms * fraction) / 1000

    @property
    def swallows(self) -> bool:
        return self.flow is Flow.BLACK_HOLE

    @property
    def freezes(self) -> bool:
        return self.flow is Flow.FREEZE


def choice(kind: type[Word], field: str, value: object) -> Word:
    """One of a closed list, by its word. Raises FaultRefused."""
    try:
        return kind(str(value))
    except ValueError as error:
        words = ", ".join(kind)
        raise FaultRefused(field, f"{field} is {value!r}", f"it must be one of {words}") from error


def check_number(field: str, value: object, least: float, most: float) -> None:
    """Raise FaultRefused unless it is a number of this range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise FaultRefused(field, f"{field} is {value!r}", f"it must be a number of {least:,} to {most:,}")


def check_count(field: str, value: object, least: int, most: int) -> None:
    """Raise FaultRefused unless it is a whole number of this range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise FaultRefused(field, f"{field} is {value!r}", f"it must be a whole number of {least:,} to {most:,}")
