"""`shrk node`: run this machine's agent in the foreground, as a service manager does.

Only typer is imported up here, so that --help is quick. Exit codes: 0 ok, 1 error, 2 usage, 5 settings invalid, 6
settings that may not be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Offer this machine's GPUs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _setting(name: str, metavar: str, text: str, default: str) -> Any:
    """An option that is a setting, too. The default is written out here: the settings themselves load slowly."""
    help_text = f"{text}  [default: {default}; env: SHRK_{name.upper()}]"
    return typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=help_text)


_STATE_DIR_DEFAULT = "/var/lib/shrk/node for root, else ~/.local/state/shrk/node"


@app.callback()
def _group() -> None:
    """Offer this machine's GPUs."""


@app.command()
def run(
    controller: Annotated[
        str | None, _setting("controller", "tcp://HOST:PORT", "The coordinator.", "the one it enrolled with")
    ] = None,
    state_dir: Annotated[
        Path | None, _setting("state_dir", "DIR", "The node's folder: identity, logs.", _STATE_DIR_DEFAULT)
    ] = None,
    name: Annotated[
        str | None, _setting("name", "NAME", "What this machine is called in lists.", "its host name")
    ] = None,
    engine: Annotated[
        str | None, _setting("engine", "auto|vllm|sim", "auto is vLLM; sim pretends, and needs no GPU.", "auto")
    ] = None,
    temp_max: Annotated[
        str | None, _setting("temp_max", "CELSIUS", "How warm a GPU may become, 40 to 95.", "70")
    ] = None,
    schedule: Annotated[
        str | None, _setting("schedule", "HOURS", "When to serve, such as 22:00-08:00.", "always")
    ] = None,
    visible_devices: Annotated[
        str | None, _setting("visible_devices", "0,2", "The GPUs to use, by index or UUID.", "all")
    ] = None,
    models: Annotated[
        str | None, _setting("models", "A,B", "Which of the catalogue, the first before the others.", "all of it")
    ] = None,
    log_format: Annotated[
        str | None,
        _setting("log_format", "auto|console|json", "auto: for people on a terminal, JSON elsewhere.", "auto"),
    ] = None,
) -> None:
    """Run the agent until it is stopped. The join token comes from SHRK_JOIN_TOKEN or the settings file.

    What it serves, [catalogue.NAME], stands in the settings file: /etc/shrk/config.toml, or the one that SHRK_CONFIG
    names. More settings there: memory_gb (for all models together; each then has its own, and a coordinator chooses),
    scale_to_zero (it may unload what nobody asks for), engine_venv (vLLM's environment), drain_seconds (for running
    answers at the end), time_zone (of the schedule), when (idle: small work of another program sends it away, too),
    payout_address, gpu and scripted_gpu (how GPUs are looked at), [sim] (how fast the simulated engine is). An option
    wins over a variable, and that over the file. SIGHUP reads the settings again.
    """
    flags = dict(locals())  # every option is a setting of the same name

    from functools import partial

    import uvloop

    from shrk_contract.settings import load
    from shrk_contract.trouble import Trouble
    from shrk_node_agent.app import run as run_agent
    from shrk_node_agent.settings import AgentSettings

    try:
        read = partial(load, AgentSettings, **flags)
        uvloop.run(run_agent(read(), read))
    except Trouble as trouble:
        typer.echo(f"shrk: {trouble}", err=True)
        raise typer.Exit(trouble.exit_code) from trouble
