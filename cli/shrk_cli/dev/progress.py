"""Shows how far a network is on its way up: a live table on a terminal, plain lines elsewhere. To standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shrk_cli.dev.status import INCOMPATIBLE, EngineStatus, NodeStatus

#: A line per engine at most this often while only its detail or percentage moves.
LINE_SECONDS = 2.0


class Progress(Protocol):
    """Told everything, shows what matters."""

    def say(self, line: str) -> None:
        """One sentence for the person watching."""

    def node(self, status: NodeStatus) -> None:
        """A node changed."""

    def tick(self) -> None:
        """Time passed: called about twice a second."""

    def settle(self) -> None:
        """All is up (or given up): from here on only sentences and changes of state."""


def make(stream: IO[str]) -> Progress:
    """The fitting kind for a stream. It survives the loss of whoever reads the stream."""
    console = Console(file=stream)
    return Surviving(LiveTable(console) if console.is_terminal else Lines(stream))


class Surviving:
    """Shows through another, until that fails to write: then the terminal or the reader is gone.

    A network must not stay up, or come down halfway, because nobody is left to be told about it.
    """

    def __init__(self, shown: Progress) -> None:
        self.shown = shown
        self._gone = False

    def say(self, line: str) -> None:
        self._try(lambda: self.shown.say(line))

    def node(self, status: NodeStatus) -> None:
        self._try(lambda: self.shown.node(status))

    def tick(self) -> None:
        self._try(self.shown.tick)

    def settle(self) -> None:
        self._try(self.shown.settle)

    def _try(self, show: Callable[[], None]) -> None:
        if self._gone:
            return
        try:
            show()
        except OSError:  # EIO from a closed terminal, EPIPE from a pipe: there is nowhere to report it
            self._gone = True


class Lines:
    """Plain lines, for logs and pipes: a change of state at once, other changes every LINE_SECONDS."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown: dict[tuple[str, str], tuple[EngineStatus, float]] = {}
        self._settled = False

    def say(self, line: str) -> None:
        print(f"shrk dev: {line}", file=self._stream, flush=True)

    def node(self, status: NodeStatus) -> None:
        now = self._clock()
        for engine in status.engines:
            key = (status.name, engine.id)
            shown, at = self._shown.get(key, (None, 0.0))
            if shown and shown.state == engine.state:
                moved = (shown.detail, percent(shown)) != (engine.detail, percent(engine))
                if self._settled or not moved or now - at < LINE_SECONDS:
                    continue
            elif self._settled and engine.serving and shown and shown.serving:
                continue  # online and busy alternate with every request
            self._shown[key] = (engine, now)
            print(_line(status.name, engine), file=self._stream, flush=True)

    def remember(self, status: NodeStatus) -> None:
        """Take a status as already shown."""
        for engine in status.engines:
            self._shown[status.name, engine.id] = (engine, self._clock())

    def tick(self) -> None:
        """Nothing moves by itself here."""

    def settle(self) -> None:
        self._settled = True


class LiveTable:
    """One row per engine, redrawn in place; then plain lines below it."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        #: Name -> its last status and when that came.
        self._nodes: dict[str, tuple[NodeStatus, float]] = {}
        # Not refreshed by itself: that would be a thread beside our event loop.
        self._live: Live | None = Live(console=console, auto_refresh=False)
        self._lines = Lines(console.file, clock)

    def say(self, line: str) -> None:
        self._console.print(f"shrk dev: {line}", highlight=False, markup=False, soft_wrap=True)

    def node(self, status: NodeStatus) -> None:
        self._nodes[status.name] = (status, self._clock())
        if self._live:
            self.tick()
        else:
            self._lines.node(status)

    def tick(self) -> None:
        if self._live and self._nodes:
            if not self._live.is_started:
                self._live.start()
            self._live.update(self._table(), refresh=True)

    def settle(self) -> None:
        if not self._live:
            return
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
        self._live = None
        for status, _ in self._nodes.values():
            self._lines.remember(status)
        self._lines.settle()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("node", "model", "state", "what", "done", "time"):
            table.add_column(heading, justify="right" if heading in ("done", "time") else "left")
        for name, (status, at) in sorted(self._nodes.items()):
            if not status.engines:
                table.add_row(name, "", status.state, status.reason, "", "")
            for engine in status.engines:
                table.add_row(
                    name,
                    engine.model,
                    Text(engine.state, style=_style(engine)),
                    engine.detail or engine.reason,
                    percent(engine),
                    duration(engine.elapsed_seconds + (0 if engine.serving else self._clock() - at)),
                )
        return table


def percent(engine: EngineStatus) -> str:
    """Its progress as text; empty where it does not tell, or has arrived."""
    return "" if engine.progress is None or engine.serving else f"{engine.progress:.0%}"


def duration(seconds: float) -> str:
    """Whole seconds as text; empty for none: "online 0 s" tells nothing."""
    text = f"{seconds:.0f} s"
    return "" if text == "0 s" else text


def _line(name: str, engine: EngineStatus) -> str:
    what = engine.detail or engine.reason
    parts = [name, engine.model, engine.state, what, percent(engine), duration(engine.elapsed_seconds)]
    return "  ".join(part for part in parts if part)


def _style(engine: EngineStatus) -> str:
    if engine.serving:
        return "green"
    return "red" if engine.state == INCOMPATIBLE else "yellow"
