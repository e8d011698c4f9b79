"""`shrk models pull` as a process, with the hub's real library and a hub on loopback: alone, two at once, cut off."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from shrk_node_agent.engine.download import Download, Downloads, Fetched
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.revisions import RevisionLock
from support.fake_hub import FakeHub, a_hub
from support.real_engine import ENGINE_PYTHON
from support.terminal import at_a_terminal

pytestmark = pytest.mark.skipif(
    not ENGINE_PYTHON.exists(), reason="huggingface_hub is in the engine's environment only: `make engine` installs it"
)

#: The hub's library writes ten megabytes at a time: half of it is some of these.
FILES = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": b"w" * 50_000_000}
FETCHED = ["config.json", "model.safetensors", "tokenizer.json"]
_SHRK = "import sys; from shrk_cli.main import main; sys.argv[0] = 'shrk'; main()"


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with a_hub() as hub:
        hub.add("org/tiny", FILES)
        yield hub


@pytest.fixture
def env(tmp_path: Path, hub: FakeHub) -> Mapping[str, str]:
    """Of the command: a node in `tmp_path`, with one model of the hub."""
    (tmp_path / "config.toml").write_text(
        f'state_dir = "{tmp_path}/node"\nengine_venv = "{ENGINE_PYTHON.parents[1]}"\n'
        '[catalogue.tiny]\nsource = "org/tiny"\n'
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHRK_")}
    ours = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HOME": str(tmp_path / "home")}
    return {**kept, **ours, "SHRK_CONFIG": str(tmp_path / "config.toml")}


async def pulled(env: Mapping[str, str], *words: str) -> tuple[int, str, str]:
    """The exit status, and what is said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SHRK, "models", "pull", "tiny", *words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_it_fetches_once_pins_the_commit_and_a_later_agent_needs_no_hub(
    env: Mapping[str, str], hub: FakeHub, tmp_path: Path
) -> None:
    status, out, err = await pulled(env)
    assert status == 0, err
    assert out.startswith("tiny: fetched, 50.1 MB of org/tiny at ")
    assert "tiny: looking at the model's files\n" in err
    assert sorted(hub.fetched()) == FETCHED
    assert (await pulled(env))[1].startswith("tiny: here already, 50.1 MB of org/tiny at ")
    hub.away = True
    node = tmp_path / "node"
    agents = Downloads(Path("/nowhere"), node / "models", RevisionLock(node / "models.lock"), node / "run")
    spec = EngineSpec(id="tiny", model="tiny", source="org/tiny")
    assert isinstance(await Download(spec, agents, lambda detail, progress: None).run(), Fetched)
    assert sorted(hub.fetched()) == FETCHED


async def test_two_at_once_fetch_each_file_once(env: Mapping[str, str], hub: FakeHub) -> None:
    results = await asyncio.gather(pulled(env, "--json"), pulled(env, "--json"))
    assert [status for status, _, _ in results] == [0, 0]
    told = [json.loads(out) for _, out, _ in results]
    assert told[0]["schema"] == 1
    assert {one["models"][0]["outcome"] for one in told} <= {"fetched", "here"}
    assert sorted(hub.fetched()) == FETCHED


async def test_a_hub_that_is_away_ends_it_with_one_and_its_reason(env: Mapping[str, str], hub: FakeHub) -> None:
    hub.away = True
    status, out, err = await pulled(env)
    assert (status, out) == (1, "")
    assert "shrk: tiny: The model is not fetched: the hub does not give org/tiny at main" in err


async def test_ctrl_c_keeps_what_is_complete_and_the_next_time_fetches_only_the_rest(
    env: Mapping[str, str], hub: FakeHub, tmp_path: Path
) -> None:
    hub.waits = {"model.safetensors"}
    with at_a_terminal(["models", "pull", "tiny"], env) as terminal:
        await asyncio.to_thread(terminal.wait_for, " of 50.1 MB (")
        await hub.waiting.wait()
        # The small files are complete once the large one is what is waited for, and told.
        await asyncio.to_thread(terminal.wait_for, "MB of 50.1 MB (")
        terminal.press_ctrl_c()
        status = await asyncio.to_thread(terminal.end)
    assert status == 130, terminal.shown
    assert "tiny: stopped. What is complete stays; go on with: shrk models pull tiny" in terminal.shown
    assert not list((tmp_path / "node" / "run" / "commands").iterdir())
    hub.waits.clear()
    hub.asked.clear()
    status, _, err = await pulled(env)
    assert status == 0, err
    assert "model.safetensors" in hub.fetched()
    assert len(hub.fetched()) < len(FETCHED)
