"""The simulated engine's command line: our own Python, so that it runs wherever the agent does."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from shrk_contract.terms import Pin
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.launch import Launch, engine_environment


@dataclass(frozen=True, slots=True)
class SimulatorSpeed:
    """How fast it pretends to be; None leaves a figure to the simulator's own default."""

    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    jitter_ms: float | None = None


def launch(spec: EngineSpec, socket: Path, *, speed: SimulatorSpeed | None = None) -> Launch:
    """The launch of a simulated engine, serving HTTP on `socket`."""
    speed = speed or SimulatorSpeed()
    # -P: the folder the agent happens to run in is no place for modules.
    command = [sys.executable, "-P", "-m", "shrk_node_agent.engine.simulated"]
    command += ["--uds", str(socket), "--model", spec.model, "--task", spec.task.value]
    figures = {
        "--slots": spec.slots,
        "--context-tokens": spec.context_tokens,
        "--first-token-ms": speed.first_token_ms,
        "--tokens-per-second": speed.tokens_per_second,
        "--jitter-ms": speed.jitter_ms,
    }
    for flag, figure in figures.items():
        if figure is not None:
            command += [flag, f"{figure:g}" if isinstance(figure, float) else str(figure)]
    # Its next token depends on the ids before it and on the seed alone: an equal seed goes on equally.
    return Launch(command=tuple(command), env=engine_environment(), pin=Pin(engine="sim", runner="v2"))
