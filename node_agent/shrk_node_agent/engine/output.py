"""What an engine writes: its last lines, its log file, how far it is, and why it ended."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shrk_node_agent.engine.launch import Launch

#: Lines kept for EngineExited, and how much of each: 25 KB at most, small enough to travel in a report.
TAIL_LINES = 50
TAIL_LINE_CHARACTERS_MAX = 500
#: vLLM writes its whole configuration as one line of 5 KB; what is longer than this is cut there.
LINE_BYTES_MAX = 32 * 1024
#: The log file, and one older beside it: a day of a chatty engine, and no harm to a disk.
LOG_BYTES_MAX = 5 * 1024 * 1024

_LINE_END = re.compile(rb"[\r\n]+")  # Progress bars end their lines with a carriage return.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: "(EngineCore pid=12) ERROR 11-20 12:15:04 [core.py:1510] " before what a process of vLLM's says.
_PREFIX = re.compile(r"^(?:\([^)]*\)\s*)?(?:(?:ERROR|WARNING|INFO|DEBUG)\s.*?\[[\w.]+:\d+\] ?)?")
#: tqdm: "Loading checkpoint shards:  50% Completed | 1/2 [...]" and "Fetching 4 files:  25%|██  | 1/4".
_PROGRESS = re.compile(r"(?P<what>[^:]{1,80}):\s+(?P<percent>\d{1,3})%(?: Completed)?\s*\|")
#: The last line of a traceback: "safetensors._rust.SafetensorError: invalid header".
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?P<text>(?:[A-Z]\w*)?(?:Error|Exception|Interrupt|Exit)(?::.*|$))")
#: argparse: "api_server.py: error: unrecognized arguments: --x".
_USAGE_ERROR = re.compile(r"^\S+: error: .+")
#: vLLM's processes wrap each other's errors; these wrappers only say that there is a cause further up.
_WRAPPERS = ("See root cause above", "See stack trace for root cause", "See the stack trace")
#: pydantic tells the cause in the line after "1 validation error for ModelConfig".
_PYDANTIC = re.compile(r"\d+ validation errors? for (?P<subject>\w+)$")

#: Causes that lie outside the model and its configuration: another try may go well.
_PASSING = re.compile(
    r"OutOfMemory|out of memory|Free memory on device|Cannot allocate memory|MemoryError"
    r"|Address already in use|No space left|Too many open files|KeyboardInterrupt"
    r"|ConnectionError|ConnectError|ConnectTimeout|ReadTimeout|Max retries|LocalEntryNotFoundError"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """A step forward."""

    detail: str
    #: 0 to 1, None where the engine does not tell.
    fraction: float | None


class EngineOutput:
    """Takes the bytes of an engine's stdout and stderr as they come, and writes its log file until `close`."""

    def __init__(self, launch: Launch, log_path: Path) -> None:
        self._launch = launch
        self._log = _LogFile(log_path)
        self._unfinished = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._tail_ends_in_progress = False
        self._progress = Progress("starting", None)
        self._cause = ""
        self._awaits_pydantic: str | None = None
        #: Parts of the pin as the log told them, in small letters.
        self.pin_parts: dict[str, str] = {}

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, without blank ones and without repeats of one progress bar."""
        return tuple(self._tail)

    @property
    def cause(self) -> str:
        """The most telling line so far: the last exception that is not merely about another one."""
        return self._cause

    def forget_cause(self) -> None:
        """What went wrong on the way up does not explain a later end."""
        self._cause = ""

    @property
    def cause_passes(self) -> bool:
        """The cause lies outside the model and its configuration."""
        return _PASSING.search(self._cause) is not None

    def feed(self, received: bytes) -> list[Progress]:
        """Take in more bytes; the steps forward that they tell of."""
        if problem := self._log.write(received):
            self._tail.append(problem)
        *lines, self._unfinished = _LINE_END.split(self._unfinished + received)
        if len(self._unfinished) > LINE_BYTES_MAX:
            lines.append(self._unfinished)
            self._unfinished = b""
        return [step for line in lines if (step := self._take(line)) is not None]

    def close(self) -> None:
        """The engine writes no more. A second call does nothing."""
        last, self._unfinished = self._unfinished, b""
        try:
            self._take(last)
        finally:
            self._log.close()

    def _take(self, raw: bytes) -> Progress | None:
        line = _COLOUR.sub("", raw[:LINE_BYTES_MAX].decode(errors="replace")).rstrip()
        if not line:
            return None
        bar = _PROGRESS.search(line)
        if bar is not None and self._tail_ends_in_progress:
            self._tail.pop()
        self._tail_ends_in_progress = bar is not None
        self._tail.append(line[:TAIL_LINE_CHARACTERS_MAX])
        self._look_for_cause(line)
        for name, pattern in self._launch.pin_patterns:
            if (found := pattern.search(line)) is not None:
                self.pin_parts.setdefault(name, found[1].lower())
        return self._step(line, bar)

    def _step(self, line: str, bar: re.Match[str] | None) -> Progress | None:
        detail = next((phase.detail for phase in self._launch.phases if phase.mark in line), None)
        if bar is not None:
            said = _PREFIX.sub("", bar["what"]).strip()
            step = Progress(detail or said.lower(), min(int(bar["percent"]), 100) / 100)
        elif detail is not None:
            step = Progress(detail, None)
        else:
            return None
        if step == self._progress:
            return None
        self._progress = step
        return step

    def _look_for_cause(self, line: str) -> None:
        said = _PREFIX.sub("", line)
        if self._awaits_pydantic is not None:
            self._cause = f"{self._awaits_pydantic}: {said.strip().removeprefix('Value error, ')}"
            self._awaits_pydantic = None
        elif any(wrapper in said for wrapper in _WRAPPERS):
            return
        elif found := _EXCEPTION.match(said):
            self._cause = found["text"]
            if pydantic := _PYDANTIC.search(said):
                self._awaits_pydantic = pydantic["subject"]
        elif _USAGE_ERROR.match(said):
            self._cause = said
        self._cause = self._cause[:TAIL_LINE_CHARACTERS_MAX]


class _LogFile:
    """Bounded: at LOG_BYTES_MAX it becomes `.1` and a new one begins.

    Written where the lines arrive, on the event loop: the kernel's cache takes a few KB in microseconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._given_up = False

    def write(self, received: bytes) -> str:
        """Empty, or once why nothing is written any more: the engine goes on all the same."""
        if self._given_up:
            return ""
        try:
            if self._file is not None and self._file.tell() + len(received) > LOG_BYTES_MAX:
                self.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)  # What a crash leaves must be on disk.
            self._file.write(received)
        except OSError as error:
            self._given_up = True
            self.close()
            return f"shrk: {self._path} is not written any more: {error.strerror}"
        return ""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
