"""The GPUs that dev nodes pretend to have: a script, copied for each node so that one of them can be heated alone.

What a script may say is the agent's to know, so that its own program is asked whether it can be played.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shrk_cli.dev.plan import NodePlan, Plan
from shrk_cli.dev.processes import Command, python, run_to_end
from shrk_cli.errors import Exit, Trouble

#: The agent's own bound; a script takes a kilobyte.
SCRIPT_BYTES_MAX = 1024 * 1024
#: Python's start, and one look at a file.
CHECK_SECONDS_MAX = 60.0


def parse_script(given: Path, working_dir: Path) -> Path:
    """Read `--scripted-gpu FILE`. Raises Trouble (usage) for what is no file that can be read."""
    path = (working_dir / given.expanduser()).absolute()
    why = ""
    try:
        with path.open("rb") as file:
            if len(file.read(SCRIPT_BYTES_MAX + 1)) > SCRIPT_BYTES_MAX:
                why = f"it has more than {SCRIPT_BYTES_MAX} bytes: it is no script"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise Trouble(
            f"--scripted-gpu {given} cannot be used",
            why=why,
            remedy="name a script such as examples/gpu-cool.toml",
            code=Exit.USAGE,
        )
    return path


async def check(plan: Plan, environment: Mapping[str, str], lifeline: int) -> None:
    """Have the agent's sensors play it once; what they say against it goes to standard error. Raises Trouble."""
    if plan.scripted_gpu is None:
        return
    words = ("--gpu", "scripted", "--scripted-gpu", str(plan.scripted_gpu), "--polls", "1", "--json")
    command = Command(
        name=f"playing {plan.scripted_gpu}",
        arguments=python("-m", "shrk_node_agent.sensors", *words),
        environment=environment,
        working_dir=plan.state_dir,
    )
    await run_to_end(command, lifeline, CHECK_SECONDS_MAX)


def lay_down(plan: Plan, node: NodePlan) -> None:
    """Give the node its own copy, whole at once: an agent of an earlier life may be reading."""
    path = plan.script_of(node)
    if plan.scripted_gpu is None or path is None:
        return
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(plan.scripted_gpu.read_bytes())
    os.replace(new, path)
