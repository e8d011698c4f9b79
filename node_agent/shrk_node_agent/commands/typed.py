"""How every verb is declared: a typer app of one command, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verb() -> typer.Typer:
    """An app for one verb. Plain help, as everywhere in `shrk`: the same in a terminal, a pipe and a bug report."""
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="The node's folder.  [default: that of its settings; env: SHRK_STATE_DIR]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help='Print one JSON object, with "schema": 1.')]
