"""`shrk stop`: the end of the agent, after the answers under way.

Idempotent: what does not run is stopped. The process is the one that answers on the control socket, never one that an
old file names. Exit codes: 0 it has ended, 6 it is another user's, 7 it has not ended in time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands import polling, service
from shrk_node_agent.commands.ending import Exit, said_plainly
from shrk_node_agent.commands.phrases import lasting
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import NotRunning, ask, running_in

app = verb()

#: An agent drains for an hour at most (drain_seconds), and its engines have half a minute to end after that.
STOP_SECONDS_MAX = 3660.0
#: From the end of its control socket to that of its process: it has only to close its files.
LAST_SECONDS_MAX = 30.0
#: How often the seconds are told while answers end.
TELL_SECONDS = 5.0


class StillThere(Trouble):
    """The agent has not ended. `str()` names its process."""

    exit_code = Exit.TIMEOUT


@app.command()
def stop(
    now: Annotated[bool, typer.Option("--now", help="Do not wait for answers: they go on at another node.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Let answers under way end, then stop the agent. Where none runs, nothing changes."""
    with said_plainly():
        folder = running_in(state_dir)
        kept_by = service.keeper(state_dir)
        try:
            document = polling.status(folder)
        except NotRunning:
            # It may be about to be started again.
            if isinstance(kept_by, service.Systemd) and kept_by.property("ActiveState") in ("activating", "active"):
                kept_by.order("stop")
            print("The node agent does not run: there is nothing to stop. Start it with: shrk start")
            return
        with polling.watched(document["pid"]) as process:
            _ask(folder, kept_by, document["pid"], now=now)
            seconds = _until_silent(folder, document["pid"])
            if not polling.ended(process, LAST_SECONDS_MAX):
                raise StillThere(
                    f"the node agent (pid {document['pid']}) closed its socket, and has not ended "
                    f"{LAST_SECONDS_MAX:g} s later. Read: shrk logs"
                )
        print(f"The node agent has ended, after {lasting(seconds)}. Start it again with: shrk start")


def _ask(folder: Path, kept_by: service.Keeper, pid: int, *, now: bool) -> None:
    """Through systemd where it keeps this very process: else it would take a stop for an end that it must mend."""
    kept = isinstance(kept_by, service.Systemd) and kept_by.property("MainPID") == str(pid)
    if now or not kept:
        ask(folder, "POST", "/stop", {"now": now})
    if kept and isinstance(kept_by, service.Systemd) and not now:
        kept_by.order("--no-block", "stop")


def _until_silent(folder: Path, pid: int) -> float:
    """Tell how it goes until the agent answers no more; how long that took. Raises StillThere."""
    began = polling.monotonic()
    told: tuple[int, int] | None = None
    for seen in polling.changes(folder, TELL_SECONDS, began + STOP_SECONDS_MAX):
        passed = polling.monotonic() - began
        if isinstance(seen, NotRunning) or seen["pid"] != pid:
            return passed
        left = sum(engine["in_flight"] for engine in seen["engines"])
        now = (left, int(passed / TELL_SECONDS))
        if now != told:
            answers = f"{left or 'no'} answer{'s' if left != 1 else ''} under way"
            print(f"Stopping: {answers}, {lasting(passed)}", file=sys.stderr)
        told = now
    raise StillThere(
        f"the node agent (pid {pid}) still runs after {lasting(STOP_SECONDS_MAX)}. End it: shrk stop --now"
    )
