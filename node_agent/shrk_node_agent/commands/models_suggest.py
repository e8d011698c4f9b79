"""`shrk models suggest`: which well-known open models fit on this machine, and the lines that add them.

Exit codes: 0, also where nothing fits; 1 the GPUs cannot be read, 5 the settings are not valid.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.typed import Json, StateDir

if TYPE_CHECKING:  # Settings load slowly, and --help needs none.
    from shrk_node_agent.known_models import Suggestion
    from shrk_node_agent.settings import AgentSettings
    from shrk_node_agent.state.devices import GpuReading

#: With the lines that add them they fill a screen.
SHOWN_MAX = 5


def suggest(
    all_: Annotated[bool, typer.Option("--all", help="All that fit, and why the others do not.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Which well-known open models fit on this machine's GPUs, the best first, and how to add each."""
    with said_plainly():
        from shrk_node_agent.commands.catalogued import catalogue_of, read_settings
        from shrk_node_agent.known_models import AS_OF, in_catalogue

        settings = read_settings(state_dir)
        gpus, found = look(settings)
        shown = [one for one in found if one.fits or all_]
        sources = {name: entry.source for name, entry in catalogue_of(settings).items()}
        has = {one.known.name: in_catalogue(one.known, sources) for one in shown}
        if as_json:
            models = [_document(one, has[one.known.name], settings.models) for one in shown]
            told = [{"index": gpu.index, "name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in gpus]
            print(json.dumps({"schema": 1, "as_of": AS_OF, "gpus": told, "models": models}, ensure_ascii=False))
        else:
            rest = len(found) - len(shown)
            print(suggestions_text(gpus, shown, has, settings.models, shorten=not all_, left_out=rest))


def look(settings: AgentSettings) -> tuple[Sequence[GpuReading], Sequence[Suggestion]]:
    """This machine's GPUs, as far as its settings let one see them, and what fits. Raises SensorsFailed."""
    from shrk_node_agent.known_models import suggestions

    gpus = asyncio.run(_readings(settings))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return gpus, suggestions(gpus, memory, settings.memory_gb)


async def _readings(settings: AgentSettings) -> Sequence[GpuReading]:
    from shrk_node_agent.owner import gpus_of

    gpus = gpus_of(settings, asyncio.get_running_loop().time, lambda: 0.0)
    try:
        return await gpus.read()
    finally:
        await gpus.close()


def suggestions_text(
    gpus: Sequence[GpuReading],
    shown: Sequence[Suggestion],
    has: Mapping[str, str],
    served: Sequence[str] = (),
    *,
    shorten: bool = False,
    left_out: int = 0,
) -> str:
    """For people. `has`: of each model the name under which the catalogue has it, or ""; `served`: the setting
    `models`, where it names some; `left_out`: how many that do not fit are not shown."""
    from shrk_node_agent.known_models import AS_OF

    fitting = [one for one in shown if one.fits]
    best = fitting[:SHOWN_MAX] if shorten else fitting
    lines = [_machine(gpus)]
    if fitting:
        where = "fit" if gpus else "a CPU can serve, slowly"
        lines.append(f"Well-known open models (as of {AS_OF}) that {where}; the best first, each judged alone:")
    else:
        lines.append("None of the well-known open models fits." if gpus else "It has too little memory for any model.")
    for number, one in enumerate(best, 1):
        lines += ["", *_block(number, one, has[one.known.name], served)]
    if others := [one for one in shown if not one.fits]:
        lines += ["", "These do not fit:", *(f"  {one.known.name}: {one.why_not}" for one in others)]
    counts = ((len(fitting) - len(best), "more fit"), (left_out, "do not"))
    if more := ", ".join(f"{count} {what}" for count, what in counts if count):
        lines += ["", f"{more}: shrk models suggest --all"]
    if best:
        lines.append("Once one is added: shrk models pull NAME, then start the agent (anew).")
    return "\n".join(lines)


def _machine(gpus: Sequence[GpuReading]) -> str:
    if not gpus:
        return "There is no GPU here that can be read, or that the settings let one see (gpu, visible_devices)."
    each = (f"{gpu.index} {gpu.name} ({'lost' if gpu.lost else f'{gpu.memory_bytes / 1e9:.1f} GB'})" for gpu in gpus)
    return f"{len(gpus)} GPU{'' if len(gpus) == 1 else 's'}: {', '.join(each)}"


def _block(number: int, one: Suggestion, has: str, served: Sequence[str]) -> list[str]:
    known = one.known
    gpus = f" on GPU{'s' if len(one.gpus) > 1 else ''} {', '.join(map(str, one.gpus))}" if one.gpus else ""
    gated = "; accept it on the hub, and give the agent HF_TOKEN" if known.gated else ""
    kind = f"{known.parameters:g} billion parameters, {known.quantisation}"
    lines = [
        f"{number}. {known.name}: {known.good_for}",
        f"   needs {one.bytes_needed / 1e9:.1f} GB{gpus}; {kind}; licence: {known.licence}{gated}",
    ]
    if has:
        return [*lines, f"   It is in the catalogue already, as {has}."]
    added = one.commands() or ("in the settings file, at its end:", *(f"  {row}" for row in one.toml().splitlines()))
    return [*lines, *(f"     {line}" for line in (*added, *_served(one, served)))]


def _served(one: Suggestion, served: Sequence[str]) -> tuple[str, ...]:
    """Where the owner names what is served, the new one is to be named as well."""
    return (f"shrk set models {','.join((*served, one.known.name))}",) if served else ()


def _document(one: Suggestion, has: str, served: Sequence[str]) -> dict[str, Any]:
    known = one.known
    return {
        "name": known.name,
        "source": known.source,
        "parameters_billion": known.parameters,
        "quantisation": known.quantisation,
        "task": known.task,
        "good_for": known.good_for,
        "licence": known.licence,
        "gated": known.gated,
        "fits": one.fits,
        "reason": one.why_not,
        "needed_bytes": one.bytes_needed,
        "gpus": list(one.gpus),
        "context_tokens": one.context_tokens,
        "in_catalogue": has or None,
        "toml": one.toml(),
        "commands": [*one.commands(), *_served(one, served)],
    }
