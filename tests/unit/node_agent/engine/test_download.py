"""A download as the agent sees it: a child under a warden, its news, its end. The hub itself: tests/engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_node_agent.engine.download import Download, Downloads, Fetched, NotFetched
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.revisions import Pinned
from shrk_node_agent.engine.sweep import sweep
from shrk_node_agent.engine.turn import Turn
from shrk_node_agent.engine.warden import living_descendants, read_process
from support.house import ROOT
from support.processes import alive, wait_until_gone
from support.scripted_downloads import FOUND, SPEC, a_snapshot, downloads
from support.wardens import wait_for_file


async def run(given: Downloads, spec: EngineSpec = SPEC) -> tuple[Fetched | NotFetched, list[tuple[str, float | None]]]:
    steps: list[tuple[str, float | None]] = []
    outcome = await Download(spec, given, lambda detail, progress: steps.append((detail, progress))).run()
    return outcome, steps


async def test_progress_is_told_in_bytes_and_what_was_fetched_is_pinned_with_its_files(tmp_path: Path) -> None:
    folder = a_snapshot(tmp_path)
    progress = {"event": "progress", "here": 500_000_000}
    given = downloads(tmp_path, FOUND, progress, {"event": "fetched", "folder": str(folder), "files": 1})
    outcome, steps = await run(given)
    assert outcome == Fetched(folder)
    assert steps == [
        ("looking at the model's files", None),
        ("downloading: 0.0 MB of 2.0 GB", 0.0),
        ("downloading: 0.5 GB of 2.0 GB", 0.25),
    ]
    assert given.lock.pinned("org/tiny", None) == Pinned("c" * 40, {"model.safetensors": 4})
    assert not list(given.run.iterdir()), "its record is gone with it"


async def test_a_model_that_is_whole_starts_no_program(tmp_path: Path) -> None:
    folder = a_snapshot(tmp_path)
    given = replace(downloads(tmp_path), python=Path("/nowhere"))
    given.lock.pin("org/tiny", None, Pinned("c" * 40, {"model.safetensors": 4}))
    assert await run(given) == (Fetched(folder), [])


async def test_an_interrupted_download_asks_for_the_commit_that_it_began_with(tmp_path: Path) -> None:
    told = tmp_path / "told"
    given = downloads(tmp_path, FOUND, STATUS="1", TOLD=str(told))
    for revision in ("main", "c" * 40):
        outcome, _ = await run(given)
        assert outcome == NotFetched("The download ended with status 1: without a word", False)
        assert f"--repository org/tiny --revision {revision} " in told.read_text()


@pytest.mark.parametrize(
    ("kind", "incompatible", "ending"),
    [("missing", True, ""), ("unsafe", True, ""), ("network", False, ""), ("disk", False, "tiny off `models`")],
)
async def test_a_refusal_is_told_in_its_words_and_final_only_where_another_try_is_of_no_use(
    tmp_path: Path, kind: str, incompatible: bool, ending: str
) -> None:
    refused = {"event": "refused", "kind": kind, "reason": "so it is"}
    outcome, _ = await run(downloads(tmp_path, "the library speaks", refused, STATUS="3"))
    assert isinstance(outcome, NotFetched)
    assert outcome.incompatible is incompatible
    assert outcome.reason.startswith("The model is not fetched: so it is")
    assert outcome.reason.endswith(ending)
    assert outcome.tail == ("the library speaks",)


async def test_a_pinned_commit_that_is_gone_is_told_with_the_file_that_pins_it(tmp_path: Path) -> None:
    given = downloads(tmp_path, {"event": "refused", "kind": "missing", "reason": "gone"})
    given.lock.pin("org/tiny", None, Pinned("c" * 40))
    outcome, _ = await run(given)
    assert isinstance(outcome, NotFetched)
    assert outcome.reason == (
        "The model is not fetched: gone. main meant this commit at its first download: delete its entry in "
        f"{given.lock.path} to look anew"
    )


async def test_a_lock_file_that_cannot_be_read_is_told_and_nothing_is_fetched(tmp_path: Path) -> None:
    given = downloads(tmp_path, FOUND)
    given.lock.path.write_text("?")
    outcome, _ = await run(given)
    assert isinstance(outcome, NotFetched)
    assert outcome.incompatible
    assert f"{given.lock.path} cannot be read" in outcome.reason


async def test_a_download_that_does_not_move_is_ended_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    given = replace(downloads(tmp_path, FOUND, STAY="1"), silence_seconds=0.5)
    outcome, _ = await run(given)
    assert outcome == NotFetched("The download stood still for 0.5 s", False)
    assert not list(given.run.iterdir())


async def test_a_stop_ends_the_program_and_a_second_download_waits_for_the_first(tmp_path: Path) -> None:
    given = downloads(tmp_path, FOUND, STAY="1", TOLD=str(tmp_path / "told"))
    first = Download(SPEC, given, lambda detail, progress: None)
    running = asyncio.create_task(first.run())
    await asyncio.to_thread(wait_for_file, tmp_path / "told")
    pids = first.pids()
    assert alive(pids) == [*pids]
    steps: list[str] = []
    waited = asyncio.Event()

    def on_step(detail: str, progress: float | None) -> None:
        steps.append(detail)
        waited.set()

    second = Download(replace(SPEC, id="b"), given, on_step)
    waiting = asyncio.create_task(second.run())
    await waited.wait()
    assert steps == ["waiting for another download"]
    second.ask_to_stop()
    assert await waiting == NotFetched("Stopped", False), "it does not wait for the first to end"
    assert not running.done()
    first.ask_to_stop()
    assert await running == NotFetched("Stopped", False)
    wait_until_gone(pids)


async def test_a_download_waits_for_that_of_another_process_and_finds_what_it_has_fetched(tmp_path: Path) -> None:
    folder = a_snapshot(tmp_path)
    given = replace(downloads(tmp_path), python=Path("/nowhere"))
    other = Turn(given.machine_turn)
    assert other.take()
    steps: list[str] = []
    waits = asyncio.Event()

    def on_step(detail: str, progress: float | None) -> None:
        steps.append(detail)
        waits.set()

    running = asyncio.create_task(Download(SPEC, given, on_step).run())
    await waits.wait()
    given.lock.pin("org/tiny", None, Pinned("c" * 40, {"model.safetensors": 4}))
    other.let_go()
    assert await running == Fetched(folder)
    assert steps == ["waiting for another download"]
    assert Turn(given.machine_turn).take(), "it has let go of its own turn"


async def test_a_stop_ends_the_wait_for_another_process(tmp_path: Path) -> None:
    given = downloads(tmp_path)
    other = Turn(given.machine_turn)
    assert other.take()
    download = Download(SPEC, given, lambda detail, progress: download.ask_to_stop())
    assert await download.run() == NotFetched("Stopped", False)
    other.let_go()


async def test_an_engine_whose_model_is_here_waits_for_no_download(tmp_path: Path) -> None:
    folder = a_snapshot(tmp_path)
    given = downloads(tmp_path)
    given.lock.pin("org/tiny", None, Pinned("c" * 40, {"model.safetensors": 4}))
    other = Turn(given.machine_turn)
    assert other.take()
    assert await run(given) == (Fetched(folder), [])
    other.let_go()


async def test_an_engine_environment_without_python_is_told(tmp_path: Path) -> None:
    outcome, _ = await run(replace(downloads(tmp_path), python=tmp_path / "none" / "python"))
    assert isinstance(outcome, NotFetched)
    assert "cannot run" in outcome.reason


async def test_a_killed_warden_leaves_neither_the_program_nor_its_record(tmp_path: Path) -> None:
    given = downloads(tmp_path, FOUND, STAY="1", TOLD=str(tmp_path / "told"))
    download = Download(SPEC, given, lambda detail, progress: None)
    running = asyncio.create_task(download.run())
    await asyncio.to_thread(wait_for_file, tmp_path / "told")
    [pid] = download.pids()
    program = read_process(pid)
    assert program is not None
    os.kill(program.parent, signal.SIGKILL)
    assert await running == NotFetched("The download's warden was killed, and the download with it", False)
    await asyncio.to_thread(wait_until_gone, [pid])
    assert not list(given.run.iterdir())


#: An agent of its own: begins a download that does not end.
_AGENT = """
import asyncio, sys
from pathlib import Path
from support.scripted_downloads import FOUND, SPEC, downloads
from shrk_node_agent.engine.download import Download
home = Path(sys.argv[1])
given = downloads(home, FOUND, STAY="1", TOLD=str(home / "told"))
asyncio.run(Download(SPEC, given, lambda detail, progress: None).run())
"""


async def test_a_killed_agent_leaves_neither_the_program_nor_its_record(tmp_path: Path) -> None:
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _AGENT, str(tmp_path)),
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    await asyncio.to_thread(wait_for_file, tmp_path / "told")
    pids = [entry.pid for entry in living_descendants(agent.pid)]
    assert len(pids) == 2, "the warden and the program"
    agent.kill()
    await agent.wait()
    await asyncio.to_thread(wait_until_gone, pids)
    assert not list((tmp_path / "run").iterdir())
    assert sweep(tmp_path / "run") == ()
