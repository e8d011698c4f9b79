"""What happened, in order: the last of it for whoever looks for a bug, all of it as a digest or on a screen."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b

from shrk_contract.terms import Report
from simulation.clock import BEGINNING, Clock

#: What a violation shows: enough to see the last fault, what followed from it, and what should not have.
SHOWN_MAX = 40
Line = tuple[float, str, str, object]


class Trace:
    """One run's events."""

    __slots__ = ("_clock", "_digest", "_last", "_show", "add")

    def __init__(self, clock: Clock, *, digest: bool = False, show: bool = False) -> None:
        self._clock = clock
        self._last: deque[Line] = deque(maxlen=SHOWN_MAX)
        self._digest = blake2b(digest_size=8) if digest or show else None
        self._show = show
        # Most runs only keep the last lines, unwritten.
        self.add = self._keep if self._digest is None else self._tell

    def _keep(self, who: str, what: str, which: object = "") -> None:
        """Something happened: who saw it, what, and to which."""
        self._last.append((self._clock.now, who, what, which))

    def _tell(self, who: str, what: str, which: object = "") -> None:
        line = (self._clock.now, who, what, which)
        self._last.append(line)
        written = _written(line)
        assert self._digest is not None, "only a trace that is written is told"
        # Times in full: a difference in the last bit is a difference.
        self._digest.update(f"{self._clock.now!r} {written}\n".encode())
        if self._show:
            sys.stdout.write(f"{written}\n")

    def last(self) -> str:
        """The last events, one a line."""
        return "\n".join(map(_written, self._last))

    @property
    def digest(self) -> str:
        """Of all events; empty where it was not asked for."""
        return "" if self._digest is None else self._digest.hexdigest()


def _written(line: Line) -> str:
    now, who, what, which = line
    return f"{now - BEGINNING:11.6f}  {who:<12} {what} {_told(which)}".rstrip()


def _told(which: object) -> str:
    """One fact in a few words; the same in every process."""
    if isinstance(which, Enum):
        return str(which.value)
    if isinstance(which, bytes):
        return which.hex()[:12]
    if isinstance(which, tuple):
        return " ".join(map(_told, which))
    if not is_dataclass(which) or isinstance(which, type):
        return str(which)
    if isinstance(which, Report):
        return ",".join(f"{e.id}:{e.status.state}:{e.life}" for e in which.engines)
    told = []
    for name, value in ((f.name, getattr(which, f.name)) for f in fields(which)):
        if name == "key":
            # Serials of an agent's links count on from one run to the next in the same process.
            told.append(f"stream={value[1]}")
        elif name != "now" and value not in ("", None, ()):
            told.append(f"{name}={_told(value)}")
    return f"{type(which).__name__}({', '.join(told)})"
