"""What an engine is to the agent: a specification, a process that lives once, and what it tells on the way.

Two kinds exist: `vllm` and `sim` (the simulated engine). Both are child processes that serve the same HTTP
on a unix socket, so everything past this module treats them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from shrk_contract.terms import Endpoint, Pin


class Task(StrEnum):
    """What a model is served for."""

    GENERATE = "generate"
    EMBED = "embed"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine as the owner and the catalogue want it."""

    #: Unique on this node and stable over restarts.
    id: str
    #: The name callers use.
    model: str
    #: A folder with weights, or a Hugging Face id; the simulated engine ignores it.
    source: str
    task: Task = Task.GENERATE
    #: Sequences generated at once.
    slots: int = 16
    #: Tokens of prompt and answer together; None leaves it to the model.
    context_tokens: int | None = None
    #: What it takes of the node's memory for models, on all its devices together; 0: not counted.
    memory_bytes: int = 0
    #: A commit, tag or branch of a Hugging Face id; None: its newest state at the first download.
    revision: str | None = None
    #: The GPUs it runs on, as UUIDs, or as indexes in the order of the PCI bus; empty: all there are, or none.
    devices: tuple[str, ...] = ()
    #: GPUs that share its weights. It takes an equal part of each.
    tensor_parallel: int = 1
    #: Of each of its GPUs (the smallest, where they differ); 0: not known, and the engine takes its default.
    device_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EngineLoading:
    """Still on the way up."""

    #: What is being done, in the engine's words: "loading weights", "warming up".
    detail: str
    #: 0 to 1, None where the engine does not tell.
    progress: float | None = None
    #: Since the start.
    elapsed_seconds: float = 0.0
    #: Its model is on the way to this machine; the engine itself has not been started.
    downloading: bool = False


@dataclass(frozen=True, slots=True)
class EngineReady:
    """Answers requests: its model list was read and one token came back."""

    pin: Pin
    endpoints: tuple[Endpoint, ...]
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class EngineExited:
    """Gone, with everything it started."""

    #: The exit status; negative is the signal that ended it; None where it could not be started or ended at all.
    returncode: int | None
    #: The last lines it wrote.
    tail: tuple[str, ...]
    #: It never became ready, and starting it again would end the same way (a path that does not load).
    incompatible: bool
    #: One sentence for the owner.
    reason: str
    #: Its model was still on the way to this machine: the engine itself was not started, and not to blame.
    fetching: bool = False


EngineEvent = EngineLoading | EngineReady | EngineExited


class EngineProcess(Protocol):
    """One life of one engine. Made by `engine.process.start`, observed through `on_event`."""

    @property
    def socket(self) -> Path:
        """Where it serves HTTP once ready."""
        ...

    def pids(self) -> tuple[int, ...]:
        """The engine's own process first, then all its descendants; empty when it is gone."""
        ...

    async def crash(self) -> str:
        """Wait for the end of its own process; how it crashed in a word or two, empty where it did not."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when nothing of it is left."""
        ...


class StartEngine(Protocol):
    """Starts one engine; EngineExited is always its last event, exactly once."""

    async def __call__(self, spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
        """Return at once; events follow on the running loop."""
        ...
