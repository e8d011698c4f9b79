"""The command `shrk`: finds subcommands through entry points and opens one only when it is asked for.

Each distribution that brings a subcommand names it in the entry point group `shrk.commands`; so the
command knows neither coordinator nor agent, and `shrk --help` imports neither.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from shrk_cli.errors import Exit, Trouble

GROUP = "shrk.commands"
#: A line of help is cut off behind this: with the names beside it, it fills the 120 columns of a module's first line.
HELP_CHARACTERS_MIN = 100


def main() -> None:
    """Run the command with the process's own arguments; ends the process with one of `Exit`."""
    try:
        typer.main.get_command(app)(prog_name="shrk")
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        sys.exit(trouble.code)


class UnopenedCommand(TyperCommand):
    """A subcommand's name and help line, before anything of it is imported."""

    def __init__(self, name: str, help_line: Callable[[], str], load: Callable[[], typer.Typer]) -> None:
        super().__init__(name=name)
        self._help_line = help_line
        self._load = load

    def get_short_help_str(self, limit: int = 45) -> str:
        """The line in the list of subcommands; only that list needs it. `limit` in characters."""
        self.help = self._help_line()
        return super().get_short_help_str(max(limit, HELP_CHARACTERS_MIN))

    def open(self) -> Any:
        """Import the subcommand and return the command behind it."""
        command = typer.main.get_command(self._load())
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """Lists subcommands from what the installed distributions declare, and opens the one that is run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.add_command(UnopenedCommand("dev", lambda: "A whole network on this machine, in the foreground.", _dev))
        self.add_command(
            UnopenedCommand("chaos", lambda: "A bad line to order: a TCP proxy, steered while it runs.", _chaos)
        )
        self.add_command(UnopenedCommand("explain", lambda: "What became of a request, attempt by attempt.", _explain))
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            self.add_command(UnopenedCommand(point.name, partial(_help_line, point), _loader(point)))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.open() if isinstance(command, UnopenedCommand) else command, rest


def _dev() -> typer.Typer:
    from shrk_cli.dev.command import app as dev

    return dev


def _chaos() -> typer.Typer:
    from shrk_cli.chaos.cli import app as chaos

    return chaos


def _explain() -> typer.Typer:
    from shrk_cli.explain import app as explain

    return explain


def _help_line(point: EntryPoint) -> str:
    """What the subcommand's module says it is for, read without importing it; else its distribution's summary."""
    found = re.sub(r"^(`[^`]*`[:, ]*(and )?)+", "", _purpose(point.module))
    if found:
        return f"{found[0].upper()}{found[1:].rstrip('.')}."
    summary = point.dist.metadata["Summary"] if point.dist else ""
    return summary.rstrip(".") + "." if summary else f"Brought by {point.value}."


def _purpose(module: str) -> str:
    """The first line of a module's docstring; "" where it has none, or cannot be found."""
    *packages, name = module.split(".")
    folders: list[str] | None = None
    for package in packages:
        spec = PathFinder.find_spec(package, folders)
        if spec is None or spec.submodule_search_locations is None:
            return ""
        folders = list(spec.submodule_search_locations)
    for folder in folders or []:
        file = Path(folder) / f"{name}.py"
        if file.is_file():
            return (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0]
    return ""


def _loader(point: EntryPoint) -> Callable[[], typer.Typer]:
    def load() -> typer.Typer:
        distribution = point.dist.name if point.dist else point.value
        try:
            loaded = point.load()
        except (ImportError, AttributeError) as error:
            raise Trouble(
                f"`shrk {point.name}` could not be opened",
                why=f"{distribution} is installed, but {point.value} does not import: {error}",
                remedy=f"install it again: pip install --force-reinstall {distribution}",
            ) from error
        if not isinstance(loaded, typer.Typer):
            raise Trouble(
                f"`shrk {point.name}` is not a command",
                why=f"{point.value} of {distribution} is a {type(loaded).__name__}, not a typer app",
                remedy=f"remove it: pip uninstall {distribution}",
            )
        return loaded

    return load


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"shrk {version('shrk-cli')}")
        raise typer.Exit(Exit.OK)


# Plain help: the same in a terminal, a pipe and a bug report, with no name cut off at 80 columns. And with rich on
# here, a group of a plain subcommand that is called without arguments prints nothing at all.
app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def shrk(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """GPUs that people already own, as one OpenAI-compatible API."""
