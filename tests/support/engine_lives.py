"""Engines started through the agent's own supervision, and the events they tell, for tests to wait on."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shrk_contract.terms import Pin
from shrk_node_agent.engine.engine import (
    EngineEvent,
    EngineExited,
    EngineLoading,
    EngineProcess,
    EngineReady,
    EngineSpec,
)
from shrk_node_agent.engine.launch import Launch, Launcher, Phase, engine_environment
from shrk_node_agent.engine.process import EngineFolders, StartLimits, start
from support.scripted_engine import __file__ as SCRIPTED_ENGINE


class Life:
    """One engine, and what it has told."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self.engine: EngineProcess | None = None
        self._news = asyncio.Event()

    def on_event(self, event: EngineEvent) -> None:
        """What the agent would be told."""
        self.events.append(event)
        self._news.set()

    async def _until(self, kind: type[EngineEvent]) -> EngineEvent:
        while True:
            for event in self.events:
                if isinstance(event, kind | EngineExited):
                    assert isinstance(event, kind), event
                    return event
            self._news.clear()
            await self._news.wait()

    async def ready(self) -> EngineReady:
        """Wait for it; fails when the engine ends before."""
        event = await self._until(EngineReady)
        assert isinstance(event, EngineReady)
        return event

    async def exited(self) -> EngineExited:
        """Wait for it."""
        event = await self._until(EngineExited)
        assert isinstance(event, EngineExited)
        return event

    async def heard(self, wanted: Callable[[EngineEvent], bool]) -> None:
        """Wait for an event like that."""
        while not any(map(wanted, self.events)):
            self._news.clear()
            await self._news.wait()

    def loading(self) -> list[EngineLoading]:
        """All steps on the way up so far."""
        return [event for event in self.events if isinstance(event, EngineLoading)]

    def pids(self) -> tuple[int, ...]:
        """Of the engine and all it started."""
        assert self.engine is not None
        return self.engine.pids()


def make_folders(home: Path) -> EngineFolders:
    """All three below one short folder."""
    return EngineFolders(run=home / "run", logs=home / "logs", sockets=home / "s")


@asynccontextmanager
async def short_home() -> AsyncIterator[Path]:
    """A folder whose path is short enough for sockets, which pytest's own is not."""
    home = Path(tempfile.mkdtemp(prefix="shrk-t-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@asynccontextmanager
async def living(
    home: Path, spec: EngineSpec, launcher: Launcher, limits: StartLimits | None = None
) -> AsyncIterator[Life]:
    """Start it, and stop it at the end. The one place that may be left with the engine still coming up."""
    life = Life()
    life.engine = await start(spec, life.on_event, launcher=launcher, folders=make_folders(home), limits=limits)
    try:
        yield life
    finally:
        await life.engine.stop(grace_seconds=5)


def scripted(*flags: str, source: str | None = None) -> Launcher:
    """The launcher of tests/support/scripted_engine.py with these flags."""

    def launcher(spec: EngineSpec, socket: Path) -> Launch:
        command = (sys.executable, SCRIPTED_ENGINE, "--uds", str(socket), "--model", spec.model, *flags)
        return Launch(
            command=command,
            env=engine_environment(),
            pin=Pin(engine="scripted", tool_parser="hermes"),
            source=source,
            phases=(Phase("shards", "loading weights"), Phase("KV cache", "warming up")),
        )

    return launcher
