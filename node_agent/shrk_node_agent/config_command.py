"""`shrk config`, `shrk get`, `shrk set`: an owner's settings, read, checked and changed.

Only typer is imported up here, so that --help is quick. Exit codes: 0 ok, 1 error, 2 usage, 5 settings invalid, 6
another user's.
"""

from __future__ import annotations

import contextlib
import json as jsons
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shrk_contract.trouble import Trouble
    from shrk_node_agent.asked_reload import Reloaded
    from shrk_node_agent.config import Written

#: Of the documents that --json prints; changes only when a field changes its meaning or goes away.
SCHEMA = 1


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
    )


config = _group("Show and check this node's settings.")
get = _group("One setting of this node.")
set_ = _group("Change one setting of this node.")

_Json = Annotated[bool, typer.Option("--json", help="For programs.")]
_Key = Annotated[str, typer.Argument(metavar="KEY", help="Such as temp_max or catalogue.NAME.slots.")]


@config.callback()
def _config() -> None:
    """Show and check this node's settings."""


@config.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="And where each value comes from.")] = False,
    json: _Json = False,
) -> None:
    """Every setting as an agent that starts now would have it. Secrets are masked.

    A flag wins over a variable (SHRK_*), and that over the settings file; below it are the files of the folder conf.d
    beside it, in alphabetical order, of which a later one wins; then the defaults.
    """
    with _explained():
        from shrk_contract.settings import load
        from shrk_node_agent.config import describe
        from shrk_node_agent.settings import AgentSettings

        settings = load(AgentSettings)
        found = describe(settings)
        if json:
            rows = [
                {"key": one.key, "value": one.value, "source": one.source} | ({"note": one.note} if one.note else {})
                for one in found
            ]
            _print_json({"files": [str(path) for path in settings.sources.files.read], "settings": rows})
            return
        lines = [f"{one.key} = {_written(one.value)}" for one in found]
        width = max(len(line) for line in lines if len(line) <= 60)
        for line, one in zip(lines, found, strict=True):
            comment = ", ".join(word for word in (one.source if origin else "", one.note) if word)
            typer.echo(f"{line.ljust(width)}  # {comment}" if comment else line)


@config.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Instead of the settings file; conf.d beside it counts.")
    ] = None,
    json: _Json = False,
) -> None:
    """Whether an agent could run with the settings; ends with 5 and every problem if not."""
    from shrk_contract.settings import SettingsError

    with _explained():
        from shrk_node_agent.config import check as checked

        try:
            settings = checked(file)
        except SettingsError as error:
            if json:
                _print_json({"valid": False, "problems": list(error.problems)})
                raise typer.Exit(error.exit_code) from error
            raise
        read = [str(path) for path in settings.sources.files.read]
        if json:
            _print_json({"valid": True, "problems": [], "files": read})
        else:
            typer.echo(f"valid: {', '.join(read)}")


@get.command(name="get")
def get_one(key: _Key, json: _Json = False) -> None:
    """What one setting is, as an agent that starts now would have it."""
    with _explained():
        from shrk_contract.settings import load
        from shrk_node_agent.config import value_of
        from shrk_node_agent.settings import AgentSettings

        value = value_of(load(AgentSettings), key)
        if json:
            _print_json({"key": key, "value": value})
        elif isinstance(value, dict):
            for name, inside in value.items():
                typer.echo(f"{name} = {_written(inside)}")
        else:
            typer.echo(value if isinstance(value, str) else _written(value))


@set_.command(name="set")
def set_one(
    key: _Key,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="Lists with commas: 0,2. Before a minus: -- KEY VALUE.")
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Take the key out, so that the default holds.")] = False,
    no_reload: Annotated[
        bool, typer.Option("--no-reload", help="Do not have the running agent read its settings again.")
    ] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="DIR", help="The running agent's folder.  [default: that of its settings]"),
    ] = None,
    json: _Json = False,
) -> None:
    """Write one setting into the settings file, comments kept, and have the running agent take it in.

    A value that would not be valid changes nothing. What an agent cannot take in while it runs is told, too.
    """
    if (value is None) != default:
        typer.echo("shrk: give a VALUE, or --default to take the key out of the file", err=True)
        raise typer.Exit(2)
    with _explained():
        from shrk_contract.trouble import Trouble
        from shrk_node_agent.asked_reload import reload
        from shrk_node_agent.config import set_value

        # Before the change: it may be of `state_dir` itself.
        folder = None if no_reload else _agents_folder(state_dir)
        written = set_value(key, value)
        reloaded: Reloaded | Trouble | None = None
        if folder is not None:
            try:
                reloaded = reload(folder)
            except Trouble as trouble:
                reloaded = trouble
        if json:
            _print_json(_changed(key, written, reloaded))
        else:
            _tell(key, written, reloaded)
        if isinstance(reloaded, Trouble):
            typer.echo(f"shrk: it is written, but {reloaded}", err=True)
            raise typer.Exit(reloaded.exit_code)


def _agents_folder(state_dir: Path | None) -> Path | None:
    """The running agent's; None where the file may not be read: then it cannot be written either, which says so."""
    from shrk_node_agent.control_client import NotAllowed, running_in

    try:
        return running_in(state_dir)
    except NotAllowed:
        return None


def _changed(key: str, written: Written, reloaded: Reloaded | Trouble | None) -> dict[str, object]:
    """For programs."""
    from shrk_node_agent.asked_reload import Reloaded

    return {
        "key": key,
        "file": str(written.file),
        "before": written.before,
        "after": written.after,
        "applied_by_reload": list(written.changes.applied),
        "needs_restart": list(written.changes.needs_restart),
        "outdone_by": written.outdone_by or None,
        # None: it was not asked, or has not taken it.
        "agent": reloaded.document() if isinstance(reloaded, Reloaded) else None,
    }


def _tell(key: str, written: Written, reloaded: Reloaded | Trouble | None) -> None:
    """For people."""
    from shrk_node_agent.asked_reload import Reloaded

    typer.echo(f"{key}: {_written(written.before)} → {_written(written.after)}  ({written.file})")
    if written.outdone_by:
        typer.echo(f"{written.outdone_by} is set in this shell and wins over the file where the agent has it, too.")
    changes = written.changes
    if isinstance(reloaded, Reloaded):
        for sentence in reloaded.sentences():
            typer.echo(sentence)
    elif reloaded is None and changes.needs_restart:
        typer.echo("A running agent takes it in when it is started again: shrk stop, then shrk start.")
    elif reloaded is None and changes.applied:
        typer.echo("A running agent takes it in at its next reload: at the next `shrk set`, or a SIGHUP.")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What a person can mend is printed, without a traceback."""
    from shrk_contract.trouble import Trouble

    try:
        yield
    except Trouble as trouble:
        typer.echo(f"shrk: {trouble}", err=True)
        raise typer.Exit(trouble.exit_code) from trouble


def _written(value: object) -> str:
    """As the file would have it; nothing is written as "-"."""
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else jsons.dumps(value, ensure_ascii=False)


def _print_json(document: dict[str, object]) -> None:
    jsons.dump({"schema": SCHEMA, **document}, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
