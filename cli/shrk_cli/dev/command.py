"""The options of `shrk dev`, checked before anything starts."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shrk_cli.dev.plan import NODES_MAX, EngineKind, SimulatorSpeed, parse_models
from shrk_cli.errors import Exit, Trouble

# Plain help: the same in a terminal, a pipe and a bug report.
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


class EngineOption(StrEnum):
    """What `--engine` takes."""

    AUTO = "auto"
    VLLM = "vllm"
    SIM = "sim"


_ScriptedGpu = Annotated[
    Path | None,
    typer.Option(
        "--scripted-gpu",
        metavar="FILE",
        help="Each node has a made-up GPU that plays its own copy of this script, DIR/dev-N/gpu.toml. Replace one "
        "while it runs to heat that node; see examples/gpu-cool.toml.  [default: several nodes look at no GPU]",
    ),
]


@app.command()
def dev(
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX, help="How many nodes.")] = 3,
    engine: Annotated[
        EngineOption,
        typer.Option(help="vllm, the simulated one, or auto: vllm where it is installed."),
    ] = EngineOption.AUTO,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH_OR_HF_ID",
            help="A model that every node serves; repeat for more.  [default: shark-tiny on every node, "
            "shark-tiny-embed on the first]",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where callers connect; 0 takes any.")] = 8080,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the network here and continue it the next time.  [default: nothing is kept]",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="When ready, print one line of JSON on stdout.")] = False,
    no_restart: Annotated[bool, typer.Option("--no-restart", help="What ends is not started again.")] = False,
    scripted_gpu: _ScriptedGpu = None,
    sim_first_token_ms: Annotated[
        int | None,
        typer.Option(min=0, max=600_000, help="Simulated engine: time to the first token.  [default: none]"),
    ] = None,
    sim_tokens_per_second: Annotated[
        float | None,
        typer.Option(
            min=0, max=100_000, help="Simulated engine: speed of one stream; 0 is no limit.  [default: no limit]"
        ),
    ] = None,
) -> None:
    """A whole network on this machine, in the foreground: a coordinator and nodes, as in production.

    Progress goes to stderr. Ctrl-C, or the death of this process, ends all of it and leaves nothing behind.
    """
    # The rest is imported only now, so that help and usage errors come at once.
    from shrk_cli.dev import foreground
    from shrk_cli.dev.coordinator import refuse_busy_port
    from shrk_cli.dev.engines import choose
    from shrk_cli.dev.scripted import parse_script

    wanted = None if engine is EngineOption.AUTO else EngineKind(engine.value)
    models = parse_models(model or [], Path.cwd())
    speed = SimulatorSpeed(sim_first_token_ms, sim_tokens_per_second)
    script = parse_script(scripted_gpu, Path.cwd()) if scripted_gpu is not None else None
    choice = choose(wanted, os.environ, Path(sys.prefix))
    if speed != SimulatorSpeed() and choice.engine is not EngineKind.SIM:
        raise _no_simulator(choice.why)
    refuse_busy_port(port)
    wish = foreground.Wish(
        nodes=nodes,
        choice=choice,
        models=models,
        port=port,
        state_dir=state_dir,
        json=json,
        restart=not no_restart,
        speed=speed,
        scripted_gpu=script,
    )
    asyncio.run(foreground.run(wish, os.environ))


def _no_simulator(why: str) -> Trouble:
    return Trouble(
        "--sim-first-token-ms and --sim-tokens-per-second set the speed of simulated engines",
        why=f"these nodes run vllm: {why}",
        remedy="add --engine sim, or leave them out",
        code=Exit.USAGE,
    )
