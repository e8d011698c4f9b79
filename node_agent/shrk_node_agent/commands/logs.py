"""`shrk logs`: what the agent, or one of its engines, wrote. Under systemd the agent's log is the journal."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands import polling, service
from shrk_node_agent.commands.absence import said
from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.tailing import follow, last_lines
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import NotAllowed, running_in

app = verb()


class NoLog(Trouble):
    """There is no such log. `str()` names those that there are."""


@app.command()
def logs(
    engine: Annotated[
        str | None, typer.Argument(metavar="[ENGINE]", help="A model's engine; without it: the agent itself.")
    ] = None,
    following: Annotated[bool, typer.Option("-f", "--follow", help="Go on as more is written, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=10_000, help="So many of the last lines.")] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="As it is written, not as people read it.")] = False,
    state_dir: StateDir = None,
) -> None:
    """What the agent wrote last, or one of its engines."""
    with said_plainly():
        folder = running_in(state_dir)
        kept_by = service.keeper(state_dir)
        if engine is None and isinstance(kept_by, service.Systemd):
            _journal(kept_by, lines, following=following)
        path = (
            service.agent_log(folder, kept_by) if engine is None else folder / "logs" / f"{quote(engine, safe='')}.log"
        )
        try:
            found = path.exists()
            if not found and not (following and engine is None):
                raise _no_log(folder, path, engine)
            written = follow(path, lines, polling.breathe) if following else last_lines(path, lines)
            for line in written:
                print(line if raw else said(line), flush=True)
        except PermissionError as error:
            raise NotAllowed(path) from error


def _journal(kept_by: service.Systemd, lines: int, *, following: bool) -> None:
    """Ends the command with journalctl's own status."""
    command = (*kept_by.journal, "--lines", str(lines), *(("--follow",) if following else ()))
    raise typer.Exit(subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode)


def _no_log(folder: Path, path: Path, engine: str | None) -> NoLog:
    if engine is None:
        return NoLog(
            f"there is no {path}: the agent was not started by `shrk start`. One that runs in a terminal (shrk node "
            "run) writes there; an engine's log: shrk logs ENGINE"
        )
    names = sorted(unquote(log.stem) for log in (folder / "logs").glob("*.log") if log.name != "agent.log")
    known = f"there are those of: {', '.join(names)}" if names else f"there are none in {folder / 'logs'} yet"
    return NoLog(f"{engine!r} has no log; {known}")
