"""The settings files of a service: read as one, with the line of each key, so that messages can point at it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from shrk_contract.toml_lines import lines_of
from shrk_contract.trouble import Trouble

#: A settings file is a page; a gigabyte named by mistake must not be read into memory.
FILE_BYTES_MAX = 256 * 1024
#: A folder of drop-ins holds a handful; one with more is some other folder, named by mistake.
DROP_INS_MAX = 64
#: Tables and lists in each other. Settings have three; what goes through all of them does so by recursion.
DEPTH_MAX = 32

KeyPath = tuple[str, ...]


class SettingsError(Trouble):
    """The settings cannot be used. `str()` is one block for the operator; commands exit with 5."""

    exit_code = 5
    _what: ClassVar[str] = "are not valid"

    def __init__(self, whose: str, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join((f"the settings of {whose} {self._what}:", *(f"  {p}" for p in problems))))


class SettingsForbidden(SettingsError):
    """Whoever asks may not read them; nothing may be wrong with them. Commands exit with 6."""

    exit_code = 6
    _what: ClassVar[str] = "may not be read"


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
    file's text, to try a change. Raises SettingsError with the problems of all files, which is SettingsForbidden where
    they are all that somebody else's file may not be read.
    """
    values: dict[str, Any] = {}
    places: dict[KeyPath, str] = {}
    read: list[Path] = []
    problems: list[_Unreadable] = []
    for path in (*_drop_ins(location), location.main):
        is_main = path == location.main
        if is_main and instead is None and not location.named and not _is_there(path):
            continue
        try:
            text = instead if is_main and instead is not None else _text(path, location)
            found = _parsed(path, text, location)
        except _Unreadable as error:
            problems.append(error)
            continue
        read.append(path)
        _lay_over(values, found)
        places |= {key: f"{path}:{line}" for key, line in lines_of(text).items()}
    if problems:
        forbidden = all(isinstance(problem, _Forbidden) for problem in problems)
        kind = SettingsForbidden if forbidden else SettingsError
        raise kind(location.whose, tuple(map(str, problems)))
    return Files(location.main, values, places, tuple(read))


class _Unreadable(Exception):
    """A file cannot be used; `str()` says which, why, and what to do."""


class _Forbidden(_Unreadable):
    """A file is another user's."""


def _forbidden(path: Path) -> str:
    return f"{path} belongs to another user, and may not be read: run it with sudo"


def _is_there(path: Path) -> bool:
    """Whether there is such a file; one in a folder that may not be entered counts, for it is to be told."""
    try:
        return path.exists()
    except PermissionError:
        return True


def _drop_ins(location: Location) -> list[Path]:
    if not location.drop_ins:
        return []
    folder = location.main.parent / location.drop_ins
    try:
        names = os.listdir(folder)  # a glob would pass over what it may not list
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise SettingsForbidden(location.whose, (_forbidden(folder),)) from error
    paths = [folder / name for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")]
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
    except PermissionError as error:
        raise _Forbidden(_forbidden(path)) from error
    except OSError as error:
        chosen = location.named and path == location.main
        unset = f"unset {location.variable} or " if location.variable else ""
        remedy = f"; {unset}name a file that exists" if chosen else ""
        raise _Unreadable(f"{path} cannot be read: {error.strerror}{remedy}") from error
    except UnicodeDecodeError as error:
        raise _Unreadable(f"{path} is not valid TOML: {error}") from error


def _parsed(path: Path, text: str, location: Location) -> dict[str, Any]:
    too_deep = f"{path} has lists or tables in each other, too deep to be read: {location.doubt}"
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(f"{path} is not valid TOML: {error}") from error
    except RecursionError:
        raise _Unreadable(too_deep) from None  # its own traceback would be a thousand lines long
    inside: list[Any] = [found]
    for _ in range(DEPTH_MAX):
        inside = [value for each in inside for value in _values(each)]
    if inside:
        raise _Unreadable(too_deep)
    return found


def _values(value: object) -> Iterable[Any]:
    """What is inside it, one level down."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Tables grow together, everything else is replaced."""
    for key, value in above.items():
        lower = below.get(key)
        if isinstance(lower, dict) and isinstance(value, dict):
            _lay_over(lower, value)
        else:
            below[key] = value
