"""One life of an engine whose model comes from the hub: first the download, then the engine on what was fetched.

To everybody else it is one process: stopped at any moment, nothing is left of either, and one end is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from shrk_node_agent.engine.download import Download, Downloads, Fetched
from shrk_node_agent.engine.engine import (
    EngineEvent,
    EngineExited,
    EngineLoading,
    EngineProcess,
    EngineSpec,
    StartEngine,
)
from shrk_node_agent.engine.launch import is_path
from shrk_node_agent.engine.process import OWN_ERROR

log = structlog.get_logger("shrk.engine")


async def start(
    spec: EngineSpec,
    on_event: Callable[[EngineEvent], None],
    *,
    downloads: Downloads,
    start_engine: StartEngine,
) -> EngineProcess:
    """As `engine.process.start`; a source on this machine downloads nothing."""
    if is_path(spec.source):
        return await start_engine(spec, on_event)
    engine = FetchedEngine(spec, on_event, downloads, start_engine)
    engine.begin()
    return engine


class FetchedEngine:
    """An `EngineProcess`."""

    def __init__(
        self,
        spec: EngineSpec,
        on_event: Callable[[EngineEvent], None],
        downloads: Downloads,
        start_engine: StartEngine,
    ) -> None:
        self._spec = spec
        self._on_event = on_event
        self._start_engine = start_engine
        self._download = Download(spec, downloads, self._step)
        self._engine: EngineProcess | None = None
        self._stopping = False
        self._began_at = 0.0

    @property
    def socket(self) -> Path:
        assert self._engine is not None, "it is ready, so it was started"
        return self._engine.socket

    def pids(self) -> tuple[int, ...]:
        return self._download.pids() if self._engine is None else self._engine.pids()

    def begin(self) -> None:
        """Start living; on the running loop."""
        self._began_at = asyncio.get_running_loop().time()
        self._fetching = asyncio.create_task(self._live(), name=f"download {self._spec.id}")

    async def crash(self) -> str:
        await asyncio.shield(self._fetching)
        return "" if self._engine is None else await self._engine.crash()

    async def stop(self, grace_seconds: float) -> None:
        self._stopping = True
        self._download.ask_to_stop()
        await asyncio.shield(self._fetching)
        if self._engine is not None:
            await self._engine.stop(grace_seconds)

    async def _live(self) -> None:
        try:
            exited = await self._until_started()
        except Exception:
            # Whatever it was: an engine whose end is never told would count as alive for ever.
            log.exception("fetching a model failed", engine=self._spec.id)
            exited = EngineExited(None, (), False, OWN_ERROR)
        if exited is not None:
            self._on_event(exited)

    async def _until_started(self) -> EngineExited | None:
        """None: the engine tells of its own end."""
        outcome = await self._download.run()
        if self._stopping:
            return EngineExited(None, (), False, "Stopped", fetching=True)
        match outcome:
            case Fetched(folder):
                self._engine = await self._start_engine(replace(self._spec, source=str(folder)), self._on_event)
                return None
            case failed:
                return EngineExited(None, failed.tail, failed.incompatible, failed.reason, fetching=True)

    def _step(self, detail: str, progress: float | None) -> None:
        if not self._stopping:
            elapsed = asyncio.get_running_loop().time() - self._began_at
            self._on_event(EngineLoading(detail, progress, elapsed, downloading=True))
