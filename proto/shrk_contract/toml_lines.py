"""On which line of a TOML file each key stands, for messages that point there. `tomllib` tells values only."""

from __future__ import annotations

import bisect
import re
import tomllib

Path = tuple[str, ...]

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and array element, by its path. The text must be valid TOML."""
    scan = _Scan(text)
    scan.document()
    return scan.lines


class _Scan:
    """One pass over a file that tomllib has accepted; so nothing is checked here."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        #: Of each array of tables: how many tables it has.
        self._counts: dict[Path, int] = {}

    def document(self) -> None:
        """Everything, from the first line to the last."""
        table: Path = ()
        while self._skip_blank():
            begun = self._at
            if self._next("[["):
                name = self._inside(self._key())
                self._counts[name] = self._counts.get(name, -1) + 1
                table = (*name, str(self._counts[name]))
                self._record(table, begun)
                self._at += len("]]")
            elif self._next("["):
                table = self._inside(self._key())
                self._record(table, begun)
                self._at += len("]")
            else:
                self._entry(table)

    def _inside(self, name: Path) -> Path:
        """The name with the numbers of the arrays of tables that it goes through: it means the last table of each."""
        path: Path = ()
        for depth, part in enumerate(name):
            path = (*path, part)
            if depth < len(name) - 1 and path in self._counts:
                path = (*path, str(self._counts[path]))
        return path

    def _record(self, path: Path, at: int) -> None:
        line = bisect.bisect_left(self._line_ends, at) + 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _entry(self, table: Path) -> None:
        begun = self._at
        path = (*table, *self._key())
        self._record(path, begun)
        self._at += len("=")
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> Path:
        """A dotted key, up to what follows it."""
        parts = []
        while True:
            self._skip(_SPACE)
            quoted = _STRING.match(self._text, self._at)
            written = quoted or _BARE_KEY.match(self._text, self._at)
            assert written is not None, "the text was accepted by tomllib"
            self._at = written.end()
            parts.append(tomllib.loads(f"v = {written[0]}")["v"] if quoted else written[0])
            self._skip(_SPACE)
            if not self._next("."):
                return tuple(parts)

    def _value(self, path: Path) -> None:
        if self._next("["):
            number = 0
            while self._skip_blank() and not self._next("]"):
                self._record((*path, str(number)), self._at)
                self._value((*path, str(number)))
                self._skip_blank()
                self._next(",")
                number += 1
        elif self._next("{"):
            while self._skip_blank() and not self._next("}"):
                self._entry(path)
                self._skip_blank()
                self._next(",")
        elif text := _STRING.match(self._text, self._at):
            self._at = text.end()
        else:
            self._skip(_SCALAR)

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _skip_blank(self) -> bool:
        """Go to the next thing that is said; whether there is one."""
        self._skip(_BLANK)
        return self._at < len(self._text)

    def _next(self, what: str) -> bool:
        """Go past it if it is next."""
        found = self._text.startswith(what, self._at)
        self._at += len(what) * found
        return found
