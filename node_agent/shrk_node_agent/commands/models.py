"""`shrk models`: the models of this node, and how each of them is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from shrk_contract.terms import SERVING
from shrk_node_agent.commands import models_pull, models_rm, models_suggest, polling
from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.phrases import columns, padded, printable
from shrk_node_agent.commands.typed import Json, StateDir, verb
from shrk_node_agent.control_client import running_in

app = verb()

_HEAD = ("MODEL", "STATE", "GPU", "RUNNING", "WHY")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False, state_dir: StateDir = None) -> None:
    """The models of this node, and how each of them is: the same as `shrk models ls`."""
    if context.invoked_subcommand is None:
        _show(as_json, state_dir)


@app.command()
def ls(as_json: Json = False, state_dir: StateDir = None) -> None:
    """The models of this node, and how each of them is."""
    _show(as_json, state_dir)


app.command()(models_pull.pull)
app.command()(models_rm.rm)
app.command()(models_suggest.suggest)


def _show(as_json: bool, state_dir: StateDir) -> None:
    with said_plainly():
        engines = polling.status(running_in(state_dir))["engines"]
        if as_json:
            print(
                json.dumps({"schema": 1, "models": [_for_programs(engine) for engine in engines]}, ensure_ascii=False)
            )
        else:
            print(models_text(engines))


def models_text(engines: Sequence[dict[str, Any]]) -> str:
    """A table; `engines` as in the status document."""
    if not engines:
        return "This node has no models. What fits here: shrk models suggest"
    rows = [_HEAD, *(_row(engine) for engine in engines)]
    told = [column for column, head in enumerate(_HEAD) if head != "GPU" or any(row[column] != "-" for row in rows[1:])]
    widths = {column: max(columns(row[column]) for row in rows) for column in told}
    return "\n".join("  ".join(padded(row[column], width) for column, width in widths.items()).rstrip() for row in rows)


def _row(engine: dict[str, Any]) -> tuple[str, ...]:
    percent = "" if engine["progress"] is None else f" {engine['progress'] * 100:.0f} %"
    load = f"{engine['in_flight']}/{engine['slots']}" if engine["state"] in SERVING else "-"
    gpus = ",".join(map(str, engine.get("gpus", ()))) or "-"
    cells = (engine["model"], f"{engine['state']}{percent}", gpus, load, engine["reason"] or engine["detail"])
    return tuple(map(printable, cells))


def _for_programs(engine: dict[str, Any]) -> dict[str, Any]:
    kept = ("model", "state", "reason", "detail", "progress", "elapsed_seconds", "in_flight", "slots", "gpus")
    return {name: engine[name] for name in kept if name in engine}
