"""`shrk status`: what this node does now, and what is wrong with it.

Exit codes: 0 online or busy, 4 it runs and takes no work (cooling, paused, off-schedule, ...), 3 it does not run,
6 it is another user's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shrk_node_agent.commands import polling, status_text
from shrk_node_agent.commands.absence import absence
from shrk_node_agent.commands.ending import Exit, said_plainly
from shrk_node_agent.commands.typed import Json, StateDir, verb
from shrk_node_agent.control_client import NotRunning, running_in

app = verb()

#: Temperatures change without an event that would end a long poll sooner.
WATCH_SECONDS = 2.0

_CLEAR = "\x1b[H\x1b[2J"


@app.command()
def status(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again whenever it changes, until Ctrl-C.")] = False,
    state_dir: StateDir = None,
) -> None:
    """What this node does now, and what is wrong with it.

    Ends with 0 where it takes work, 4 where it runs and takes none, 3 where it does not run, 6 where it is another
    user's: with sudo it is told.
    """
    with said_plainly():
        folder = running_in(state_dir)
        if watch:
            _watch(folder, state_dir, as_json=as_json)
        try:
            document = polling.status(folder)
        except NotRunning as why:
            print(_absent(folder, state_dir, as_json=as_json))
            raise typer.Exit(Exit.NOT_RUNNING) from why
        print(_present(document, as_json=as_json))
        raise typer.Exit(Exit.OK if status_text.is_eligible(document) else Exit.NOT_ELIGIBLE)


def _watch(folder: Path, flag: Path | None, *, as_json: bool) -> None:
    shown = ""
    for seen in polling.changes(folder, WATCH_SECONDS):
        if isinstance(seen, NotRunning):
            text = _absent(folder, flag, as_json=as_json)
        else:
            text = _present(seen, as_json=as_json)
        if text != shown:
            print(_CLEAR + text if sys.stdout.isatty() and not as_json else text, flush=True)
        shown = text


def _present(document: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps(document, ensure_ascii=False)
    # A pipe has no width, and what reads it no colours.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return status_text.status_text(document, width, status_text.coloured if _has_colours() else status_text.plain)


def _absent(folder: Path, flag: Path | None, *, as_json: bool) -> str:
    known = absence(folder, flag)
    return json.dumps(known.document(), ensure_ascii=False) if as_json else known.text()


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
