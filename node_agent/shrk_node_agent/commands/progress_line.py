"""How far a download is: one line that changes on a terminal, a line for each tenth elsewhere, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import IO, Protocol

from shrk_node_agent.commands.phrases import cut, lasting, printable

#: Before that, a guess at how long it takes swings too far to be of use.
GUESS_SECONDS_MIN = 3.0
#: Of people's patience: lines of a log, for one download.
LINES_EACH = 10


class Progress(Protocol):
    """Told everything, shows what matters."""

    def step(self, name: str, detail: str, fraction: float | None) -> None:
        """One model's download; `fraction` from 0 to 1, None: not known."""

    def over(self) -> None:
        """Its download has ended, however."""


def make(stream: IO[str], clock: Callable[[], float]) -> Progress:
    """The fitting kind for a stream. `clock` in seconds."""
    return UpdatingLine(stream, clock) if stream.isatty() else PlainLines(stream)


class Silent:
    """For programs, which read the document at the end."""

    def step(self, name: str, detail: str, fraction: float | None) -> None:
        """Nothing."""

    def over(self) -> None:
        """Nothing."""


class PlainLines:
    """For logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._told: object = None

    def step(self, name: str, detail: str, fraction: float | None) -> None:
        news = (name, detail if fraction is None else int(fraction * LINES_EACH))
        if news != self._told:
            print(_words(name, detail, fraction), file=self._stream, flush=True)
        self._told = news

    def over(self) -> None:
        self._told = None


class UpdatingLine:
    """For a terminal."""

    def __init__(self, stream: IO[str], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def step(self, name: str, detail: str, fraction: float | None) -> None:
        text = _words(name, detail, fraction)
        if fraction is not None and (left := self._left(fraction)) is not None and left >= 1:
            text += f", {lasting(left)} left"
        # Shorter than the terminal by one: behind the last column it would begin a new line.
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r{cut(text, width)}\x1b[K")
        self._stream.flush()

    def over(self) -> None:
        self._first = None
        self._stream.write("\r\x1b[K")
        self._stream.flush()

    def _left(self, fraction: float) -> float | None:
        """Seconds that the rest takes at the pace so far."""
        now = self._clock()
        if self._first is None:
            self._first = (now, fraction)
        began, had = self._first
        if now - began < GUESS_SECONDS_MIN or fraction <= had:
            return None
        return (1.0 - fraction) * (now - began) / (fraction - had)


def _words(name: str, detail: str, fraction: float | None) -> str:
    percent = "" if fraction is None else f" ({fraction * 100:.0f} %)"
    return printable(f"{name}: {detail}{percent}")
