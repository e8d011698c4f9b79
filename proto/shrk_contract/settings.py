"""How both services read their settings: flag > environment > TOML files > default, and errors in one block.

The names are one contract with operators: the TOML key is the field, the variable is the prefix and the field
in capitals. An unknown key or variable is an error with the nearest known name, never silently ignored.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shrk_contract.settings_files import Files, Location, SettingsError, SettingsForbidden, read_files
from shrk_contract.settings_problems import Sources, did_you_mean, problems_of

__all__ = ["ServiceSettings", "SettingsError", "SettingsForbidden", "load", "located", "reading", "variables"]

#: Of the settings being made: the files, where they were read already, and the variables that do not count.
_FILES: ContextVar[Files | None] = ContextVar("files", default=None)
_IGNORED: ContextVar[Collection[str]] = ContextVar("ignored", default=())


class _Given(PydanticBaseSettingsSource):
    """Values that were read already."""

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
    #: The folder beside the file with more of them; "": there is none.
    drop_ins: ClassVar[str] = ""
    #: Variables with the prefix that are read elsewhere.
    other_variables: ClassVar[frozenset[str]] = frozenset()

    #: Known to `load`, which makes the settings.
    _sources: Sources | None = PrivateAttr(default=None)

    @property
    def sources(self) -> Sources:
        """Where the values came from."""
        assert self._sources is not None, "settings are made by load()"
        return self._sources

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the files. No .env: which folder one stands in must not matter."""
        files = _FILES.get() or reading(cls)
        variables = {name: value for name, value in env_settings().items() if name not in _IGNORED.get()}
        return init_settings, _Given(settings_cls, variables), _Given(settings_cls, files.values)


S = TypeVar("S", bound=ServiceSettings)


def load(settings: type[S], files: Files | None = None, *, ignoring: Collection[str] = (), **flags: object) -> S:
    """Read all sources; a flag of None was not given. `files`: instead of those on the disk. `ignoring`: settings whose
    variables do not count, to look at what the files say.

    Raises SettingsError with every problem at once.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    files = files or reading(settings)
    spoken = {name: variable for name, variable in variables(settings).items() if name not in ignoring}
    sources = Sources(frozenset(given), spoken, files)
    unknown = _unknown_variables(settings)
    told_files, told_ignored = _FILES.set(files), _IGNORED.set(ignoring)
    try:
        loaded = settings(**given)
    except ValidationError as error:
        problems = (*unknown, *problems_of(settings, error, sources))
        raise SettingsError(_named(settings, files), problems) from error
    finally:
        _FILES.reset(told_files)
        _IGNORED.reset(told_ignored)
    if unknown:
        raise SettingsError(settings.whose, unknown)
    loaded._sources = sources
    return loaded


def located(settings: type[ServiceSettings], main: Path | None = None) -> Location:
    """Where the service's files are; `main`: another main file than that of the variable or the default."""
    if main is not None:
        return Location(settings.whose, "", main, True, settings.drop_ins)
    return Location.found(settings.whose, settings.file_variable, settings.file_default, settings.drop_ins)


def reading(settings: type[ServiceSettings]) -> Files:
    """The service's files as they are now. Raises SettingsError."""
    return read_files(located(settings))


def _named(settings: type[ServiceSettings], files: Files) -> str:
    """Whose settings, and the file they may be in."""
    return f"{settings.whose} (file: {files.main})" if files.read else settings.whose


def _prefix(settings: type[ServiceSettings]) -> str:
    return settings.model_config.get("env_prefix", "")


def variables(settings: type[ServiceSettings]) -> dict[str, str]:
    """Of each setting that the environment sets, the variable. Upper or lower case is all one, and empty is none."""
    by_name = {name.upper(): name for name, value in os.environ.items() if value}
    wanted = {field: _prefix(settings) + field.upper() for field in settings.model_fields}
    return {field: by_name[variable] for field, variable in wanted.items() if variable in by_name}


def _unknown_variables(settings: type[ServiceSettings]) -> tuple[str, ...]:
    prefix = _prefix(settings)
    known = [prefix + name.upper() for name in settings.model_fields] + [settings.file_variable]
    return tuple(
        f"{name} (environment) is not a setting{did_you_mean(name, known)}"
        for name in sorted(os.environ)
        if name.startswith(prefix) and name not in known and not _is_other(settings, name)
    )


def _is_other(settings: type[ServiceSettings], name: str) -> bool:
    return any(name == other or (other.endswith("_") and name.startswith(other)) for other in settings.other_variables)
