"""How one kind of engine is started, as a value: all that differs between vLLM and the simulated engine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shrk_contract.terms import Pin
from shrk_node_agent.engine.engine import EngineSpec


@dataclass(frozen=True, slots=True)
class Phase:
    """A step on the way up, known by what the engine writes at its beginning."""

    #: Part of a line of the engine's log.
    mark: str
    #: What the owner is told.
    detail: str


@dataclass(frozen=True, slots=True)
class Launch:
    """One engine, ready to be started."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    #: What is known before the start; the rest is read from the engine and its files.
    pin: Pin
    #: The folder or Hugging Face id that holds tokenizer, template and weights; None where there is none.
    source: str | None = None
    phases: tuple[Phase, ...] = ()
    #: Parts of the pin that only the log tells: (field of Pin, pattern whose first group is the value).
    pin_patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()


#: Makes the launch for an engine that shall listen on the given unix socket.
Launcher = Callable[[EngineSpec, Path], Launch]


def is_path(source: str) -> bool:
    """Whether a source means a folder of this machine, be it there or not, and no Hugging Face id."""
    return source.startswith(("/", "./", "../", "~")) or Path(source).exists()


def engine_environment(drop: frozenset[str] = frozenset()) -> dict[str, str]:
    """The agent's environment without its own settings (tokens and keys are among them) and without `drop`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SHRK_") and name not in drop}
