"""The command finds its subcommands without importing them, and ends with codes that scripts may rely on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from shrk_cli import main
from shrk_cli.errors import Exit, Trouble

HEAVY = ("grpc", "aiohttp", "sqlalchemy", "shrk_coordinator", "shrk_node_agent")


def test_help_lists_every_subcommand_and_imports_none_of_them() -> None:
    program = (
        "import sys; from shrk_cli.main import main; sys.argv = ['shrk', '--help']\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *help_lines, imported = done.stdout.splitlines()
    for name in ("dev", "coordinator", "node"):
        assert any(f" {name} " in line for line in help_lines), done.stdout
    assert imported == "[]"


def test_help_says_what_each_subcommand_is_for_in_its_own_words() -> None:
    said = CliRunner().invoke(main.app, ["--help"], terminal_width=150).output
    assert "\n  status       What this node does now, and what is wrong with it.\n" in said
    assert "\n  pause        No new work for a while, for the owner wants the machine.\n" in said
    assert "shrk's node agent" not in said, "its module says what it is for"


def test_a_module_that_cannot_be_found_leaves_its_distributions_summary() -> None:
    point = EntryPoint("strange", "no.such:app", main.GROUP)
    assert main._help_line(point) == "Brought by no.such:app."


def groups(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every group of commands, by the words that call it, with the names of what is in it."""
    yield words, list(group.commands)
    for name, command in group.commands.items():
        opened = command.open() if isinstance(command, main.UnopenedCommand) else command
        if hasattr(opened, "commands"):
            yield from groups(opened, (*words, name))


def test_every_group_called_without_arguments_prints_its_help() -> None:
    found = dict(groups(typer.main.get_command(main.app)))
    assert {(), ("coordinator",), ("coordinator", "tokens"), ("coordinator", "keys"), ("node",)} <= found.keys()
    for words, names in found.items():
        # They show the nodes, and the models: what their names say.
        help_wanted = ["--help"] if words in (("coordinator", "nodes"), ("models",)) else []
        result = CliRunner().invoke(main.app, [*words, *help_wanted])
        if help_wanted:
            assert all(f" {name} " in result.output for name in names), f"{words}: {result.output}"
            continue
        assert result.exit_code == Exit.USAGE
        assert all(f"\n  {name} " in result.output for name in names), f"{words}: {result.output}"


def test_no_option_of_dev_is_cut_off_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(main.app, ["dev", "--help"]).output
    for option in ("--nodes", "--no-restart", "--sim-first-token-ms", "--sim-tokens-per-second"):
        assert f"  {option} " in text or f"  {option}\n" in text
    assert "[default: 3; 1<=x<=32]" in text


def test_version_is_one_line() -> None:
    result = CliRunner().invoke(main.app, ["--version"])
    assert result.exit_code == Exit.OK
    assert result.stdout.startswith("shrk 0.")


def test_an_unknown_subcommand_is_a_usage_error_that_suggests_one() -> None:
    result = CliRunner().invoke(main.app, ["coordinatr"])
    assert result.exit_code == Exit.USAGE
    assert "Did you mean 'coordinator'" in result.output


def test_a_subcommand_that_does_not_import_says_which_distribution_to_install_again() -> None:
    command = main.UnopenedCommand(
        "broken", "Broken.", main._loader(EntryPoint("broken", "shrk_cli.nowhere:app", main.GROUP))
    )
    with pytest.raises(Trouble, match="`shrk broken` could not be opened") as caught:
        command.open()
    assert "pip install --force-reinstall" in caught.value.remedy


def test_an_entry_point_that_is_no_typer_app_is_refused() -> None:
    command = main.UnopenedCommand("odd", "Odd.", main._loader(EntryPoint("odd", "shrk_cli.errors:Exit", main.GROUP)))
    with pytest.raises(Trouble, match="is not a command"):
        command.open()


def test_trouble_is_printed_as_what_why_and_next_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise Trouble("it broke", why="first\nsecond", remedy="mend it", code=Exit.CONFIG_INVALID)

    monkeypatch.setattr(main, "app", failing)
    monkeypatch.setattr(sys, "argv", ["shrk"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == Exit.CONFIG_INVALID
    assert capsys.readouterr().err == "shrk: it broke\n  first\n  second\n  → mend it\n"
