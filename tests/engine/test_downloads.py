"""The hub's real library against a hub on loopback: one commit, safetensors only, nothing twice, reasons in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_node_agent.engine.download import Download, Downloads, Fetched, NotFetched
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.revisions import RevisionLock
from support.fake_hub import FakeHub, a_hub
from support.processes import alive
from support.real_engine import ENGINE_PYTHON

pytestmark = pytest.mark.skipif(
    not ENGINE_PYTHON.exists(), reason="huggingface_hub is in the engine's environment only: `make engine` installs it"
)

#: The hub's library writes ten megabytes at a time: half of it is some of these.
WEIGHTS = b"w" * 50_000_000
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"print('code')",
    "onnx/config.json": b"{}",
    "1_Pooling/config.json": b'{"pooling": true}',
}
SPEC = EngineSpec(id="org/tiny", model="tiny", source="org/tiny")


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with a_hub() as hub:
        yield hub


@pytest.fixture
def downloads(tmp_path: Path, hub: FakeHub) -> Downloads:
    return Downloads(
        python=ENGINE_PYTHON,
        cache=tmp_path / "models",
        lock=RevisionLock(tmp_path / "models.lock"),
        run=tmp_path / "run",
        reserve_bytes=0,
        env={"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HOME": str(tmp_path / "home")},
    )


async def run(downloads: Downloads, spec: EngineSpec = SPEC) -> Fetched | NotFetched:
    return await Download(spec, downloads, lambda detail, progress: None).run()


async def fetched(downloads: Downloads, spec: EngineSpec = SPEC) -> Path:
    outcome = await run(downloads, spec)
    assert isinstance(outcome, Fetched), outcome
    return outcome.folder


async def refused(downloads: Downloads, spec: EngineSpec = SPEC) -> NotFetched:
    outcome = await run(downloads, spec)
    assert isinstance(outcome, NotFetched), outcome
    return outcome


@asynccontextmanager
async def under_way(downloads: Downloads, hub: FakeHub) -> AsyncIterator[tuple[Download, list[float | None]]]:
    """A download that waits amid its weights, with the rest of its files complete."""
    hub.waits = {"model.safetensors"}
    steps: list[float | None] = []
    half = asyncio.Event()

    def on_step(detail: str, progress: float | None) -> None:
        steps.append(progress)
        if progress is not None and progress > 0.4:
            half.set()

    download = Download(SPEC, downloads, on_step)
    running = asyncio.create_task(download.run())
    await hub.waiting.wait()
    await half.wait()
    try:
        yield download, steps
    finally:
        await running


async def test_an_engine_gets_weights_configuration_and_tokenizer_and_neither_pickles_nor_code(
    downloads: Downloads, hub: FakeHub
) -> None:
    commit = hub.add("org/tiny", FILES)
    folder = await fetched(downloads)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"}
    assert sorted(hub.fetched()) == sorted(files)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.name == commit
    assert not list(downloads.run.iterdir())


async def test_what_is_here_needs_no_hub_and_stays_at_its_commit_when_the_branch_moves_on(
    downloads: Downloads, hub: FakeHub
) -> None:
    first = hub.add("org/tiny", FILES)
    await fetched(downloads)
    hub.add("org/tiny", {**FILES, "config.json": b'{"new": 1}'})
    hub.asked.clear()
    again = replace(downloads, lock=RevisionLock(downloads.lock.path))
    assert (await fetched(again)).name == first
    assert hub.asked == []


async def test_a_tag_and_a_commit_name_what_is_fetched(downloads: Downloads, hub: FakeHub) -> None:
    tagged = hub.add("org/tiny", FILES, revision="v1")
    newest = hub.add("org/tiny", FILES)
    assert (await fetched(downloads, replace(SPEC, revision="v1"))).name == tagged
    assert (await fetched(downloads, replace(SPEC, revision=tagged))).name == tagged
    assert (await fetched(downloads)).name == newest


async def test_an_interrupted_download_goes_on_with_its_commit_and_fetches_no_whole_file_twice(
    downloads: Downloads, hub: FakeHub
) -> None:
    first = hub.add("org/tiny", FILES)
    async with under_way(downloads, hub) as (download, steps):
        assert 0.4 < max(step for step in steps if step is not None) < 0.6
        pids = download.pids()
        assert pids
        download.ask_to_stop()
    assert not alive(pids)
    hub.add("org/tiny", {**FILES, "config.json": b'{"new": 1}'})
    hub.waits.clear()
    hub.asked.clear()
    assert (await fetched(downloads)).name == first
    assert hub.fetched() == ["model.safetensors"]
    assert not list(downloads.cache.rglob("*.incomplete"))


async def test_a_connection_that_breaks_off_is_taken_up_where_it_stood(downloads: Downloads, hub: FakeHub) -> None:
    hub.add("org/tiny", FILES)
    hub.breaks = {"model.safetensors"}
    folder = await fetched(downloads)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [path for path, _ in hub.ranges] == ["model.safetensors"]


async def test_a_disk_without_room_is_told_with_figures_before_a_byte_is_fetched(
    downloads: Downloads, hub: FakeHub
) -> None:
    hub.add("org/tiny", FILES)
    outcome = await refused(replace(downloads, reserve_bytes=10**18))
    assert not outcome.incompatible
    assert "50.1 MB are still to be fetched" in outcome.reason
    assert f"into {downloads.cache}, whose disk has" in outcome.reason
    assert "1000000000.0 GB stay reserved; free" in outcome.reason
    assert outcome.reason.endswith("or take tiny off `models`")
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SPEC, source="org/none"), "the hub has no model org/none, or a private one"),
        (replace(SPEC, revision="v9"), "org/tiny has no revision v9"),
        (replace(SPEC, source="a/b/c"), "'a/b/c' is neither a folder here nor ORG/NAME of a model on the hub"),
        (replace(SPEC, source="org/pickled"), "it holds only pytorch_model.bin and the like, which can run code"),
        (replace(SPEC, source="org/gated"), "org/gated is gated: accept its licence on the hub"),
    ],
)
async def test_what_no_second_try_would_find_is_incompatible_in_words(
    downloads: Downloads, hub: FakeHub, spec: EngineSpec, words: str
) -> None:
    hub.add("org/tiny", FILES)
    hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    hub.add("org/gated", FILES)
    hub.repositories["org/gated"].gated = True
    outcome = await refused(downloads, spec)
    assert words in outcome.reason
    assert outcome.incompatible
    assert hub.fetched() == []


async def test_a_hub_that_is_away_may_come_back(downloads: Downloads, hub: FakeHub) -> None:
    hub.add("org/tiny", FILES)
    hub.away = True
    outcome = await refused(downloads)
    assert not outcome.incompatible
    assert "the hub does not give org/tiny at main" in outcome.reason
    nobody = replace(downloads, env={**downloads.env, "HF_ENDPOINT": "http://127.0.0.1:1"})
    outcome = await refused(nobody)
    assert not outcome.incompatible
    assert "the hub cannot be reached" in outcome.reason
    hub.away = False
    await fetched(downloads)


async def test_a_download_that_stands_still_is_ended_and_may_be_tried_again(downloads: Downloads, hub: FakeHub) -> None:
    hub.add("org/tiny", FILES)
    hub.waits = {"model.safetensors"}
    outcome = await refused(replace(downloads, silence_seconds=4.0))
    assert outcome == NotFetched("The download stood still for 4 s", False, outcome.tail)


async def test_a_hub_that_names_no_commit_is_not_believed(downloads: Downloads, hub: FakeHub) -> None:
    hub.add("org/tiny", FILES)
    hub.repositories["org/tiny"].revisions["main"] = "../../elsewhere"
    hub.repositories["org/tiny"].commits["../../elsewhere"] = FILES
    outcome = await refused(downloads)
    assert not outcome.incompatible
    assert "the hub calls '../../elsewhere' a commit" in outcome.reason
    assert hub.fetched() == []
