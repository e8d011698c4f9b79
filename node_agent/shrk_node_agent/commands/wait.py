"""`shrk wait --for online`: for scripts, until the node is in a state.

The agent tells its changes; nothing is polled while it runs. Exit codes: 0 it is, 7 it was not in time.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from shrk_contract.terms import SERVING, State
from shrk_node_agent.commands import polling, status_text
from shrk_node_agent.commands.ending import Exit, WrongUsage, said_plainly
from shrk_node_agent.commands.phrases import printable
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import NotRunning, running_in

app = verb()

#: A long poll ends at the latest then: an agent that was started anew meanwhile counts its changes anew, too.
POLL_SECONDS = 5.0


@app.command()
def wait(
    wanted: Annotated[str, typer.Option("--for", metavar="STATE", help="online (or busy), or any other state.")],
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Then end with 7.  [default: never]")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Wait until the node is in a state, also for an agent that does not run yet. online: it takes work."""
    with said_plainly():
        if wanted not in set(State):
            raise WrongUsage(f"--for: {wanted!r} is no state of a node; they are: {', '.join(State)}")
        until = polling.monotonic() + timeout if timeout is not None else float("inf")
        said = ""
        for seen in polling.changes(running_in(state_dir), POLL_SECONDS, until):
            if reached(seen, State(wanted)):
                raise typer.Exit(Exit.OK)
            if (now := _now(seen)) != said:
                print(now, file=sys.stderr)
            said = now
        print(f"shrk: not {wanted} within {timeout:g} s: {said}. Ask: shrk status, shrk why", file=sys.stderr)
        raise typer.Exit(Exit.TIMEOUT)


def reached(seen: dict[str, Any] | NotRunning, wanted: State) -> bool:
    """Whether what is seen is what is waited for. A node that takes work is online, busy or not."""
    if isinstance(seen, NotRunning):
        return wanted is State.OFFLINE
    return status_text.is_eligible(seen) if wanted in SERVING else seen["state"] == wanted


def _now(seen: dict[str, Any] | NotRunning) -> str:
    if isinstance(seen, NotRunning):
        return "it does not run"
    link = "" if seen["link"] == "connected" else f"not linked ({seen['link_reason'] or seen['link']})"
    return printable(", ".join(word for word in (f"it is {seen['state']}", seen["reason"], link) if word))
