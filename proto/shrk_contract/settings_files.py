"""The settings files of a service: read as one, with the line of each key, so that messages can point at it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shrk_contract.toml_lines import lines_of
from shrk_contract.trouble import Trouble

#: A settings file is a page; a gigabyte named by mistake must not be read into memory.
FILE_BYTES_MAX = 256 * 1024
#: A folder of drop-ins holds a handful; one with more is some other folder, named by mistake.
DROP_INS_MAX = 64

KeyPath = tuple[str, ...]


class SettingsError(Trouble):
    """The settings cannot be used. `str()` is one block for the operator; commands exit with 5."""

    exit_code = 5

    def __init__(self, whose: str, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join((f"the settings of {whose} are not valid:", *(f"  {p}" for p in problems))))


@dataclass(frozen=True, slots=True)
class Files:
    """What the settings files say together, and where."""

    #: The file that an owner edits, whether it is there or not.
    main: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    #: `file:line` of each key that is set.
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    #: Those that were read, the last of which wins.
    read: tuple[Path, ...] = ()

    def place(self, path: KeyPath) -> str | None:
        """`file:line` of the key, or of the table that it is missing from; None: it is in no file."""
        for length in range(len(path), 0, -1):
            if place := self.places.get(path[:length]):
                return place
        return None


@dataclass(frozen=True, slots=True)
class Location:
    """Where a service's files are. `drop_ins`: the folder beside the main file with more of them; "": there is none."""

    whose: str
    #: That can name another main file; "": it was named on the spot.
    variable: str
    main: Path
    #: An owner chose the main file, so it must exist.
    named: bool
    drop_ins: str = ""

    @classmethod
    def found(cls, whose: str, variable: str, default: Path, drop_ins: str) -> Location:
        """Where the variable or the default points to."""
        named = os.environ.get(variable)
        return cls(whose, variable, Path(named) if named else default, bool(named), drop_ins)

    @property
    def doubt(self) -> str:
        """What to ask oneself where a file is none of ours."""
        return f"is {self.variable} right?" if self.variable else "is it the right file?"


def read_files(location: Location, *, instead: str | None = None) -> Files:
    """The main file, and below it the drop-ins in alphabetical order, of which a later one wins over an earlier.

    The main file wins over all of them: what an owner writes there is what holds. `instead` stands in for the main
    file's text, to try a change. Raises SettingsError with the problems of all files.
    """
    values: dict[str, Any] = {}
    places: dict[KeyPath, str] = {}
    read, problems = [], []
    for path in (*_drop_ins(location), location.main):
        is_main = path == location.main
        if is_main and instead is None and not location.named and not path.exists():
            continue
        try:
            text = instead if is_main and instead is not None else _text(path, location)
            found = _parsed(path, text)
        except _Unreadable as error:
            problems.append(str(error))
            continue
        read.append(path)
        _lay_over(values, found)
        places |= {key: f"{path}:{line}" for key, line in lines_of(text).items()}
    if problems:
        raise SettingsError(location.whose, tuple(problems))
    return Files(location.main, values, places, tuple(read))


class _Unreadable(Exception):
    """A file cannot be used; `str()` says which, why, and what to do."""


def _drop_ins(location: Location) -> list[Path]:
    if not location.drop_ins:
        return []
    folder = location.main.parent / location.drop_ins
    paths = sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
    if len(paths) > DROP_INS_MAX:
        problem = f"{folder} has {len(paths)} files, more than {DROP_INS_MAX}: {location.doubt}"
        raise SettingsError(location.whose, (problem,))
    return paths


def _text(path: Path, location: Location) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _Unreadable(f"{path} is larger than {FILE_BYTES_MAX} bytes: {location.doubt}")
        # As bytes: TOML's own rules for line ends, not Python's.
        return path.read_bytes().decode()
    except OSError as error:
        chosen = location.named and path == location.main
        unset = f"unset {location.variable} or " if location.variable else ""
        remedy = f"; {unset}name a file that exists" if chosen else ""
        raise _Unreadable(f"{path} cannot be read: {error.strerror}{remedy}") from error
    except UnicodeDecodeError as error:
        raise _Unreadable(f"{path} is not valid TOML: {error}") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(f"{path} is not valid TOML: {error}") from error


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Tables grow together, everything else is replaced."""
    for key, value in above.items():
        lower = below.get(key)
        if isinstance(lower, dict) and isinstance(value, dict):
            _lay_over(lower, value)
        else:
            below[key] = value
