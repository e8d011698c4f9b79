"""An engine whose model comes from the hub is one process to everybody else: one start, one end, nothing left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.engine import EngineEvent, EngineExited, EngineProcess, EngineSpec
from shrk_node_agent.engine.fetched import start
from shrk_node_agent.engine.launch import Launch
from shrk_node_agent.engine.process import OWN_ERROR
from shrk_node_agent.engine.process import start as start_process
from support.engine_lives import Life, make_folders, scripted, short_home
from support.processes import alive
from support.scripted_downloads import FOUND, SPEC, a_snapshot, downloads


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    async with short_home() as folder:
        yield folder


async def begun(home: Path, given: Downloads, spec: EngineSpec = SPEC) -> tuple[Life, list[str]]:
    """Its life, and the sources that engines were launched with."""
    life, sources = Life(), list[str]()

    def launcher(spec: EngineSpec, socket: Path) -> Launch:
        sources.append(spec.source)
        return scripted()(spec, socket)

    start_engine = partial(start_process, launcher=launcher, folders=make_folders(home))
    life.engine = await start(spec, life.on_event, downloads=given, start_engine=start_engine)
    return life, sources


async def test_the_engine_starts_on_the_folder_that_was_fetched_and_its_end_is_the_only_one(home: Path) -> None:
    folder = a_snapshot(home)
    life, sources = await begun(home, downloads(home, FOUND, {"event": "fetched", "folder": str(folder), "files": 1}))
    await life.ready()
    assert sources == [str(folder)]
    downloading = [step.downloading for step in life.loading()]
    assert downloading == sorted(downloading, reverse=True)
    assert {True, False} == set(downloading)
    assert life.engine is not None
    pids = life.pids()
    assert alive(pids) == [*pids]
    assert life.engine.socket.exists()
    await life.engine.stop(grace_seconds=5)
    assert not alive(pids)
    ends = [event for event in life.events if isinstance(event, EngineExited)]
    assert [(end.reason, end.fetching) for end in ends] == [("Stopped", False)]


async def test_a_source_on_this_machine_downloads_nothing(home: Path) -> None:
    source = str(a_snapshot(home))
    life, sources = await begun(home, downloads(home), EngineSpec(id="e", model="m", source=source))
    await life.ready()
    assert sources == [source]
    assert not any(step.downloading for step in life.loading())
    assert life.engine is not None
    await life.engine.stop(grace_seconds=5)


async def test_a_model_that_does_not_come_ends_without_an_engine_and_is_not_laid_at_its_door(home: Path) -> None:
    refused = {"event": "refused", "kind": "network", "reason": "away"}
    life, sources = await begun(home, downloads(home, "a last line", refused, STATUS="3"))
    end = await life.exited()
    assert end == EngineExited(None, ("a last line",), False, "The model is not fetched: away", fetching=True)
    assert life.engine is not None
    assert await life.engine.crash() == ""
    await life.engine.stop(grace_seconds=5)
    assert life.events.count(end) == 1
    assert sources == []


async def test_a_stop_amid_the_download_ends_it_and_starts_no_engine(home: Path) -> None:
    life, sources = await begun(home, downloads(home, FOUND, STAY="1"))
    await life.heard(lambda event: "downloading" in str(event))
    pids = life.pids()
    assert alive(pids) == [*pids]
    assert life.engine is not None
    await life.engine.stop(grace_seconds=5)
    assert not alive(pids)
    assert life.events[-1] == EngineExited(None, (), False, "Stopped", fetching=True)
    assert sources == []


async def test_an_error_of_our_own_still_tells_an_end(home: Path) -> None:
    folder = a_snapshot(home)
    given = downloads(home, FOUND, {"event": "fetched", "folder": str(folder), "files": 1})

    async def broken(spec: EngineSpec, on_event: Callable[[EngineEvent], None]) -> EngineProcess:
        raise RuntimeError("planted")

    life = Life()
    life.engine = await start(SPEC, life.on_event, downloads=given, start_engine=broken)
    assert (await life.exited()).reason == OWN_ERROR
