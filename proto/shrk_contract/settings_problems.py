"""What is said of settings that cannot be used: where the value comes from, what is allowed, the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from shrk_contract.settings_files import Files, KeyPath

_OUT_OF_RANGE = frozenset({"greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number"})


class SettingInvalid(ValueError):
    """A check over several settings says which one is wrong: its key is `path`."""

    def __init__(self, path: KeyPath, text: str) -> None:
        super().__init__(f"{'.'.join(path)}: {text}")
        self.path = path
        self.text = text


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values of one service's settings came from."""

    #: Given on the command line.
    flags: frozenset[str]
    #: The variable of each setting that has one which is set.
    variables: Mapping[str, str]
    files: Files

    def of(self, path: KeyPath) -> str:
        """A flag, a variable, `file:line`, or "default"."""
        return self._spoken(path) or self.files.places.get(path) or "default"

    def named(self, path: KeyPath) -> str:
        """The setting for a message, with where it comes from."""
        deeper = ".".join(path[1:])
        if spoken := self._spoken(path):
            return f"{spoken}.{deeper}" if deeper else spoken
        place = self.files.place(path)
        return f"{place}: {'.'.join(path)}" if place else ".".join(path)

    def _spoken(self, path: KeyPath) -> str | None:
        name = path[0]
        return f"--{name.replace('_', '-')}" if name in self.flags else self.variables.get(name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the nearest one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are: {', '.join(known)}"


def problems_of(settings: type[BaseModel], error: ValidationError, sources: Sources) -> tuple[str, ...]:
    """One sentence each."""
    problems = []
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            continue  # only echoes the error of the field it builds on
        path = tuple(map(str, item["loc"]))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SettingInvalid):
            problems.append(f"{sources.named(cause.path)}: {cause.text}")
        elif not path:
            problems.append(item["msg"].removeprefix("Value error, "))
        elif item["type"] == "extra_forbidden":
            wrong = path[-1]
            problems.append(
                f"{sources.named(path)} is not a setting{did_you_mean(wrong, fields_at(settings, path[:-1]))}"
            )
        else:
            problems.append(f"{sources.named(path)}: {_said(item, field_at(settings, path))}")
    return tuple(dict.fromkeys(problems))


def fields_at(settings: type[BaseModel], path: KeyPath) -> dict[str, FieldInfo]:
    """The fields of the table at `path`; a dictionary of tables has one step for the entry's own name."""
    if not path:
        return settings.model_fields
    name, *deeper = path
    if name not in settings.model_fields:
        return {}
    inside = settings.model_fields[name].annotation
    if get_origin(inside) is dict:
        if not deeper:
            return {}  # any name may be an entry's
        inside, deeper = get_args(inside)[1], deeper[1:]
    return fields_at(inside, tuple(deeper)) if isinstance(inside, type) and issubclass(inside, BaseModel) else {}


def field_at(settings: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """What is declared of the setting; None where there is none of this name, or for a table's entry."""
    return fields_at(settings, path[:-1]).get(path[-1])


def allowed(field: FieldInfo) -> str:
    """The range of a number in words, such as "40 to 95"; "" where it has none."""
    least = most = ""
    for bound in field.metadata:
        if (value := getattr(bound, "ge", None)) is not None:
            least = f"{value}"
        elif (value := getattr(bound, "gt", None)) is not None:
            least = f"more than {value}"
        elif (value := getattr(bound, "le", None)) is not None:
            most = f"{value}"
    if least and most:
        return f"{least} to {most}"
    if least:
        return least if least.startswith("more") else f"{least} or more"
    return f"up to {most}" if most else ""


def _said(item: Mapping[str, Any], field: FieldInfo | None) -> str:
    text = str(item["msg"]).removeprefix("Value error, ")
    given = item["input"]
    if field is None:
        return text
    if item["type"] in _OUT_OF_RANGE and (span := allowed(field)):
        return f"{text}, not {given}; allowed is {span}"
    choices = field.annotation
    if item["type"] == "enum" and isinstance(choices, type) and issubclass(choices, Enum) and isinstance(given, str):
        close = difflib.get_close_matches(given, [str(choice.value) for choice in choices], n=1)
        return f"{text}, not {given!r}" + (f"; did you mean {close[0]}?" if close else "")
    return text
