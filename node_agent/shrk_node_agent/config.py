"""An owner's settings as a document: where each value comes from, and changing one without losing a comment."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from tomlkit.container import Container
from tomlkit.items import Table

from shrk_contract.durable import replace_kept
from shrk_contract.settings import SettingsError, load, located, variables
from shrk_contract.settings_files import KeyPath, Location, read_files
from shrk_contract.settings_problems import did_you_mean, field_at, fields_at
from shrk_contract.trouble import Trouble
from shrk_node_agent import time_zone
from shrk_node_agent.reload import Changes, compare
from shrk_node_agent.settings import AgentSettings
from shrk_node_agent.time_zone import in_force

#: What is shown of a secret that is set.
MASK = "********"


class ConfigUnchanged(Trouble):
    """A change could not be made; the file is as it was. `str()` says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting: its dotted key, its value in effect, and the flag, variable, `file:line` or default it is from."""

    key: str
    value: object
    source: str
    #: What the value comes to on this machine, where it does not say so itself.
    note: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A change that was made."""

    file: Path
    #: As `describe` would show them.
    before: object
    after: object
    #: What of it a running agent takes in at a reload, and what at a restart only.
    changes: Changes
    #: The variable that wins over the file in this shell; "": none.
    outdone_by: str


@dataclass(frozen=True, slots=True)
class WrittenAll:
    """Changes that were made in one step."""

    file: Path
    #: What of them a running agent takes in at a reload, and what at a restart only.
    changes: Changes
    #: Of each setting that another source hides in this shell, the variable that wins over the file.
    outdone_by: Mapping[str, str]


def describe(settings: AgentSettings) -> list[Origin]:
    """Every setting, a table's in its own order, with secrets masked."""
    zone = in_force(settings.time_zone, time_zone.zone(settings.time_zone))
    notes: dict[KeyPath, str] = {("time_zone",): f"in force: {zone}"} if zone.why else {}
    return [
        Origin(".".join(map(_quoted, path)), value, settings.sources.of(path), notes.get(path, ""))
        for path, value in _leaves((), settings)
    ]


def value_of(settings: AgentSettings, key: str) -> object:
    """What `describe` tells of one setting, or of all below a table. Raises SettingsError for a name that is none."""
    path = _path(key)
    found = {leaf: value for leaf, value in _leaves((), settings) if leaf[: len(path)] == path}
    if path in found:
        return found[path]
    if not found:
        raise _unknown(settings, path)
    return {".".join(map(_quoted, leaf[len(path) :])): value for leaf, value in found.items()}


def set_value(key: str, text: str | None, main: Path | None = None) -> Written:
    """Write one setting into the settings file; None takes it out. Comments and order stay.

    The whole is checked first. Raises SettingsError where it would not be valid, and ConfigUnchanged where it cannot be
    written; then the file is as it was.
    """
    path = _path(key)
    file, old, new = _written({path: text}, main)
    return Written(
        file=file,
        before=value_of(old, key) if old and _is_set(old, path) else None,
        after=value_of(new, key) if _is_set(new, path) else None,
        changes=compare(old, new) if old else Changes((), path[:1]),
        outdone_by=variables(AgentSettings).get(path[0], ""),
    )


def set_values(changes: Mapping[str, str], main: Path | None = None, *, blank: str = "") -> WrittenAll:
    """As `set_value`, several in one step: all of them or none. `blank`: what a file begins with that was not there."""
    paths = {_path(key): text for key, text in changes.items()}
    file, old, new = _written(paths, main, blank)
    heads = dict.fromkeys(path[0] for path in paths)
    outdone = {name: variable for name, variable in variables(AgentSettings).items() if name in heads}
    return WrittenAll(file, compare(old, new) if old else Changes((), tuple(heads)), outdone)


def _written(
    changes: Mapping[KeyPath, str | None], main: Path | None, blank: str = ""
) -> tuple[Path, AgentSettings | None, AgentSettings]:
    """The file, and the settings before (None: they were not valid) and after. Raises as `set_value`."""
    location = located(AgentSettings, main)
    # Their own variables would hide what is written.
    heads = {path[0] for path in changes}
    with _locked(location.main):
        old_text = _text(location)
        new_text = old_text or blank
        for path, text in changes.items():
            new_text = _edited(new_text, path, text)
        try:
            new = load(AgentSettings, read_files(location, instead=new_text), ignoring=heads)
        except SettingsError as error:
            raise SettingsError(f"{AgentSettings.whose}, had this been written,", error.problems) from error
        try:
            old = load(AgentSettings, read_files(location, instead=old_text), ignoring=heads)
        except SettingsError:
            old = None  # the change mends it
        try:
            secret = "join_token" in heads
            if secret and location.main.exists():
                location.main.chmod(location.main.stat().st_mode & 0o770)
            replace_kept(location.main, new_text.encode(), 0o600 if secret else 0o644)
        except OSError as error:
            raise _unwritable(location.main, error) from error
    return location.main, old, new


def check(main: Path | None = None) -> AgentSettings:
    """The settings as an agent would have them, all of them right: also what the files say where a variable hides it.

    `main`: instead of the settings file. Raises SettingsError.
    """
    files = read_files(located(AgentSettings, main))
    hidden = [name for name in variables(AgentSettings) if name in files.values]
    problems: list[str] = []
    for ignoring in ((), hidden) if hidden else ((),):
        try:
            load(AgentSettings, files, ignoring=ignoring)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(f"{AgentSettings.whose} (file: {files.main})", tuple(dict.fromkeys(problems)))
    return load(AgentSettings, files)


# --- reading -------------------------------------------------------------------------------------------


def _leaves(path: KeyPath, value: object) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves((*path, name), getattr(value, name))
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield from _leaves((*path, name), inside)
    elif isinstance(value, SecretStr):
        yield path, MASK if value.get_secret_value() else ""
    elif isinstance(value, tuple):
        yield path, list(value)
    else:
        yield path, str(value) if isinstance(value, Path | str) else value


def _is_set(settings: AgentSettings, path: KeyPath) -> bool:
    return any(leaf[: len(path)] == path for leaf, _ in _leaves((), settings))


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'


def _path(key: str) -> KeyPath:
    """A dotted key as TOML writes it. Raises SettingsError where it is none, or no setting can have this name."""
    parts: list[str] = []
    try:
        inside: Any = tomllib.loads(f"{key} = 0")
        while isinstance(inside, dict) and len(inside) == 1:
            [(part, inside)] = inside.items()
            parts.append(part)
    except tomllib.TOMLDecodeError:
        parts = []
    if not parts or isinstance(inside, dict):
        problem = f"{key!r} is not a key such as temp_max or catalogue.NAME.slots; a NAME with dots is put in quotes"
        raise SettingsError(AgentSettings.whose, (problem,))
    path = tuple(parts)
    known = fields_at(AgentSettings, path[:-1])
    if (known or len(path) == 1) and path[-1] not in known:
        raise _not_a_setting(path, known)
    if not known and path[:-1] != ("catalogue",):
        raise _not_a_setting(
            path[:1] if path[0] not in AgentSettings.model_fields else path, AgentSettings.model_fields
        )
    return path


def _not_a_setting(path: KeyPath, known: Mapping[str, object]) -> SettingsError:
    return SettingsError(AgentSettings.whose, (f"{'.'.join(path)} is not a setting{did_you_mean(path[-1], known)}",))


def _unknown(settings: AgentSettings, path: KeyPath) -> SettingsError:
    names = settings.catalogue if path[0] == "catalogue" else AgentSettings.model_fields
    wrong = path[1] if path[0] == "catalogue" and len(path) > 1 else path[-1]
    problem = f"{'.'.join(path)} is not set: there is no {wrong!r}{did_you_mean(wrong, names)}"
    return SettingsError(settings.whose, (problem,))


# --- writing -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One writer at a time; a second one waits for the moment that the first one needs."""
    try:
        folder = os.open(file.resolve().parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _unwritable(file: Path, error: OSError) -> ConfigUnchanged:
    remedy = "try it with sudo" if isinstance(error, PermissionError) else "is it the right file?"
    return ConfigUnchanged(f"{file} cannot be written, and is as it was: {error.strerror}; {remedy}")


def _text(location: Location) -> str:
    """The settings file's text, which is TOML; "" where there is none yet. Raises SettingsError."""
    if not location.main.exists():
        return ""
    read_files(location)
    return location.main.read_bytes().decode()


def _edited(old_text: str, path: KeyPath, text: str | None) -> str:
    """The file's new text. Raises SettingsError where the file has no place for the key."""
    document = tomlkit.parse(old_text)
    expected: dict[str, Any] = document.unwrap()
    if text is None:
        _take_out(document, path)
        _take_out(expected, path)
        return _unless_more_changed(tomlkit.dumps(document), expected, path)
    value = _toml_value(path, text, field_at(AgentSettings, path))
    _put(expected, path, value)
    uncommented = _uncommented(old_text, path, value)
    if uncommented is not None and _is(uncommented, expected):
        return uncommented
    _put(document, path, value)
    new_text = tomlkit.dumps(document)
    return _unless_more_changed(new_text, expected, path)


def _unless_more_changed(text: str, expected: Mapping[str, Any], path: KeyPath) -> str:
    if not _is(text, expected):
        raise ConfigUnchanged(
            f"{'.'.join(path)} cannot be changed in the form in which the file has it without touching other keys; the "
            "file is as it was: change it by hand"
        )
    return text


def _is(text: str, expected: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False


def _put(table: Any, path: KeyPath, value: object) -> None:
    *tables, name = path
    for step in tables:
        if step not in table:
            table[step] = tomlkit.table() if isinstance(table, Container | Table) else {}
        table = table[step]
        if not isinstance(table, dict):
            raise SettingsError(AgentSettings.whose, (f"{'.'.join(path)}: {step} is not a table",))
    table[name] = value


def _take_out(table: Any, path: KeyPath) -> None:
    *tables, name = path
    for step in tables:
        table = table.get(step, {})
    if name in table:
        del table[name]


def _uncommented(text: str, path: KeyPath, value: object) -> str | None:
    """The text with the key where it stands commented out, as the default file has it; None: it does not."""
    if len(path) > 1:
        return None
    line = re.compile(rf"^#[ \t]?{re.escape(path[0])}[ \t]*=[^\n]*$", re.MULTILINE)
    written = f"{path[0]} = {tomlkit.item(value).as_string()}"
    changed, count = line.subn(lambda _: written, text, count=1)
    return changed if count else None


def _toml_value(path: KeyPath, text: str, field: FieldInfo | None) -> object:
    """The text as the file would say it: words for lists, numbers for numbers, else the text itself."""
    if field is None:
        problem = f"{'.'.join(path)} is a table; set one of its keys, such as {'.'.join(path)}.source"
        raise SettingsError(AgentSettings.whose, (problem,))
    kind = str(field.annotation)
    if kind.startswith("tuple"):
        listed = text.strip().removeprefix("[").removesuffix("]")
        return [word.strip().strip('"') for word in listed.split(",") if word.strip()]
    if field.annotation in (bool, int, float) or kind in ("float | None", "int | None"):
        try:
            value: object = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            return text  # the check says what is wrong with it
        # Not a number: equal to nothing, so that one could not even see that it was written.
        return value if isinstance(value, bool | int | float) and not math.isnan(value) else text
    return text
