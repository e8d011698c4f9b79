"""`shrk pause 2h`: no new work for a while, for the owner wants the machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from shrk_node_agent.commands.durations import seconds_of
from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.phrases import lasting
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import ask, running_in

app = verb()


@app.command()
def pause(
    how_long: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HOW LONG]", help="2h, 30m, 1h30m, or until 08:00; without it: until shrk resume."),
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Take no new work for a while. Answers under way end first; the agent goes on by itself afterwards."""
    with said_plainly():
        now = time.time()
        seconds = seconds_of(how_long, now) if how_long else None
        ask(running_in(state_dir), "POST", "/pause", {"seconds": seconds})
        if seconds is None:
            print("Paused until you say: shrk resume")
        else:
            ends = time.strftime("%a %H:%M", time.localtime(now + seconds))
            print(f"Paused for {lasting(seconds)}, until {ends}. Sooner: shrk resume")
