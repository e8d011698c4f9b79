"""How both services read their settings: flag > environment > TOML file > default, and errors in one block.

The names are one contract with operators: the TOML key is the field, the variable is the prefix and the field
in capitals. An unknown key or variable is an error with the nearest known name, never silently ignored.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shrk_contract.trouble import Trouble

#: A settings file is a page; a gigabyte named by mistake must not be read into memory.
FILE_BYTES_MAX = 256 * 1024


class SettingsError(Trouble):
    """The settings cannot be used. `str()` is one block for the operator; commands exit with 5."""

    exit_code = 5

    def __init__(self, whose: str, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join((f"the settings of {whose} are not valid:", *(f"  {p}" for p in problems))))


class _TomlFile(PydanticBaseSettingsSource):
    """The settings file's values, or none."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = dict(values)

    def get_field_value(self, field: object, field_name: str) -> tuple[Any, str, bool]:
        """One field's value, as the interface asks."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class ServiceSettings(BaseSettings):
    """Settings of one service; made by `load`."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        # Ours are plain words, not JSON; and an empty variable, as compose files leave them, is none.
        enable_decoding=False,
        env_ignore_empty=True,
    )

    #: "the coordinator", for messages.
    whose: ClassVar[str]
    #: The variable that names another file, and the file read without it.
    file_variable: ClassVar[str]
    file_default: ClassVar[Path]
    #: Variables with the prefix that are read elsewhere.
    other_variables: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file. No .env: which folder one stands in must not matter."""
        return init_settings, env_settings, _TomlFile(settings_cls, _read_file(cls))


S = TypeVar("S", bound=ServiceSettings)


def load(settings: type[S], **flags: object) -> S:
    """Read all sources; a flag of None was not given. Raises SettingsError with every problem at once."""
    unknown = _unknown_variables(settings)
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        loaded = settings(**given)
    except ValidationError as error:
        raise SettingsError(_named(settings), (*unknown, *_problems_of(settings, error, given))) from error
    if unknown:
        raise SettingsError(settings.whose, unknown)
    return loaded


def _named(settings: type[ServiceSettings]) -> str:
    """Whose settings, and the file they may be in."""
    path = Path(os.environ.get(settings.file_variable) or settings.file_default)
    return f"{settings.whose} (file: {path})" if path.exists() else settings.whose


def _prefix(settings: type[ServiceSettings]) -> str:
    return settings.model_config.get("env_prefix", "")


def _read_file(settings: type[ServiceSettings]) -> dict[str, Any]:
    variable, whose = settings.file_variable, settings.whose
    named = os.environ.get(variable)
    path = Path(named) if named else settings.file_default
    if not named and not path.exists():
        return {}
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise SettingsError(whose, (f"{path} is larger than {FILE_BYTES_MAX} bytes: is {variable} right?",))
        return tomllib.loads(path.read_text())
    except OSError as error:
        remedy = f"; unset {variable} or name a file that exists" if named else ""
        raise SettingsError(whose, (f"{path} cannot be read: {error.strerror}{remedy}",)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(whose, (f"{path} is not valid TOML: {error}",)) from error


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are: {', '.join(sorted(known))}"


def _unknown_variables(settings: type[ServiceSettings]) -> tuple[str, ...]:
    prefix = _prefix(settings)
    known = [prefix + name.upper() for name in settings.model_fields] + [settings.file_variable]
    return tuple(
        f"{name} (environment) is not a setting{_did_you_mean(name, known)}"
        for name in sorted(os.environ)
        if name.startswith(prefix) and name not in known and not _is_other(settings, name)
    )


def _is_other(settings: type[ServiceSettings], name: str) -> bool:
    return any(name == other or (other.endswith("_") and name.startswith(other)) for other in settings.other_variables)


def _origin(settings: type[ServiceSettings], name: str, flags: Mapping[str, object]) -> str:
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = _prefix(settings) + name.upper()
    return variable if variable in os.environ else name


def _fields_at(settings: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """The fields of the table at `path`; a dictionary of tables has one step for the entry's own name."""
    if not path:
        return list(settings.model_fields)
    field, *deeper = path
    inside = settings.model_fields[field].annotation
    if get_origin(inside) is dict:
        inside, deeper = get_args(inside)[1], deeper[1:]
    return _fields_at(inside, tuple(deeper)) if isinstance(inside, type) and issubclass(inside, BaseModel) else []


def _problems_of(
    settings: type[ServiceSettings], error: ValidationError, flags: Mapping[str, object]
) -> tuple[str, ...]:
    problems = []
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            continue  # only echoes the error of the field it builds on
        text = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            problems.append(text)
            continue
        name, *deeper = map(str, item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(settings, (name, *deeper[:-1]) if deeper else ())
            *_, wrong = name, *deeper
            problems.append(f"{'.'.join((name, *deeper))} is not a setting{_did_you_mean(wrong, known)}")
        else:
            problems.append(".".join((_origin(settings, name, flags), *deeper)) + f": {text}")
    return tuple(dict.fromkeys(problems))
