"""Supervision of real vLLM: one at a time, each of them some 30 s and 3 GB."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from shrk_contract.terms import Endpoint
from shrk_node_agent.engine import fetched, vllm
from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.launch import Launch
from shrk_node_agent.engine.process import start
from shrk_node_agent.engine.revisions import RevisionLock
from shrk_node_agent.engine.warden import living_processes
from support.engine_lives import Life, living, make_folders, short_home
from support.fake_hub import a_hub
from support.processes import alive, wait_until, wait_until_gone
from support.real_engine import ROOT, tiny_model
from support.wardens import wait_for_file

#: vLLM needs 25 to 40 s on two idle cores, and a busy machine several times as long.
pytestmark = pytest.mark.timeout(400)

VENV = ROOT / ".venv-engine"
LAUNCHER = partial(vllm.launch, venv=VENV, gpu=False)

#: An agent of its own: starts vLLM, and tells all pids once it is ready.
_AGENT = """
import asyncio, sys, uvloop
from functools import partial
from pathlib import Path
from support.engine_lives import living
from shrk_node_agent.engine import vllm
from shrk_node_agent.engine.engine import EngineSpec
async def main():
    home, venv, source = map(Path, sys.argv[1:])
    spec = EngineSpec(id="tiny", model="shark-tiny", source=str(source), slots=4, context_tokens=4096)
    async with living(home, spec, partial(vllm.launch, venv=venv, gpu=False)) as life:
        await life.ready()
        Path(home, "told").write_text(" ".join(map(str, life.pids())) + "\\n")
        await asyncio.sleep(600)
uvloop.run(main())
"""


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    async with short_home() as folder:
        yield folder


def spec(source: Path) -> EngineSpec:
    return EngineSpec(id="tiny", model="shark-tiny", source=str(source), slots=4, context_tokens=4096)


def left_files(home: Path) -> list[Path]:
    """Everything but logs."""
    return [*(home / "run").iterdir(), *(home / "s").iterdir()]


def session_of(session: int) -> list[int]:
    return [entry.pid for entry in living_processes() if entry.session == session]


async def test_a_ready_engine_has_given_a_token_tells_its_pin_and_its_death_leaves_nothing(home: Path) -> None:
    async with living(home, spec(tiny_model()), LAUNCHER) as life:
        ready = await life.ready()
        assert ready.endpoints == (Endpoint.COMPLETIONS, Endpoint.CHAT_COMPLETIONS)
        assert (ready.slots, ready.context_tokens) == (4, 4096)
        pin = ready.pin
        assert (pin.engine, pin.engine_version, pin.dtype) == ("vllm", vllm.installed(VENV), "float32")
        assert (pin.quantisation, pin.tool_parser) == ("", "hermes")
        assert all(len(d) == 64 for d in (pin.model_revision, pin.tokenizer_digest, pin.chat_template_digest))
        details = [step.detail for step in life.loading()]
        assert "loading weights" in details
        assert details[-1] == "asking for the first token"

        pids = life.pids()
        assert len(pids) >= 3, "the API, its engine core and a worker"
        os.kill(pids[0], signal.SIGKILL)
        exited = await life.exited()
        assert not alive(pids)
        assert not session_of(pids[0])
    assert exited.reason.startswith("The engine was killed by SIGKILL;")
    assert not left_files(home)


async def test_a_model_that_does_not_load_is_incompatible_with_vllms_own_words(home: Path) -> None:
    broken = home / "broken"
    shutil.copytree(tiny_model(), broken)
    (weights,) = broken.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    async with living(home, spec(broken), LAUNCHER) as life:
        exited = await life.exited()
    assert exited.incompatible
    assert exited.reason.startswith("The engine ended with status 1 before it was ready: SafetensorError: ")
    assert any("Engine core initialization failed" in line for line in exited.tail)
    assert not left_files(home)


async def test_a_path_with_no_model_is_incompatible_with_vllms_own_words(home: Path) -> None:
    nowhere = home / "nowhere"
    async with living(home, spec(nowhere), LAUNCHER) as life:
        exited = await life.exited()
    assert exited.incompatible
    assert exited.reason.startswith(f"There is nothing at {nowhere}; the engine says: ")
    assert f"'{nowhere}'" in exited.tail[-1]
    assert not left_files(home)


async def test_a_killed_agent_leaves_nothing_of_vllm(home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _AGENT, str(home), str(VENV), str(tiny_model())), env=environment
    )
    told = await asyncio.to_thread(wait_for_file, home / "told", 300)
    pids = [int(pid) for pid in told.split()]
    assert len(pids) >= 3, "the API, its engine core and a worker"
    agent.kill()
    await agent.wait()
    await asyncio.to_thread(wait_until_gone, pids)
    await asyncio.to_thread(wait_until, lambda: not left_files(home), "the warden has removed its files")
    assert not session_of(pids[0])


async def test_a_model_is_fetched_from_the_hub_and_served_from_its_commit_without_a_network(home: Path) -> None:
    async with a_hub() as hub:
        files = {path.name: path.read_bytes() for path in tiny_model().iterdir() if path.is_file()}
        commit = hub.add("org/shark-tiny", files)
        downloads = Downloads(
            python=VENV / "bin" / "python",
            cache=home / "models",
            lock=RevisionLock(home / "models.lock"),
            run=home / "run",
            reserve_bytes=0,
            env={"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HOME": str(home / "home")},
        )
        life, launched = Life(), list[Launch]()

        def launcher(spec: EngineSpec, socket: Path) -> Launch:
            launched.append(LAUNCHER(spec, socket))
            return launched[-1]

        start_engine = partial(start, launcher=launcher, folders=make_folders(home))
        wanted = EngineSpec(id="tiny", model="shark-tiny", source="org/shark-tiny", slots=4, context_tokens=4096)
        life.engine = await fetched.start(wanted, life.on_event, downloads=downloads, start_engine=start_engine)
        try:
            ready = await life.ready()
        finally:
            await life.engine.stop(grace_seconds=5)
    assert ready.pin.model_revision == commit
    assert launched[0].env["HF_HUB_OFFLINE"] == "1"
    details = [step.detail for step in life.loading() if step.downloading]
    assert details[0] == "looking at the model's files"
    assert details[1].startswith("downloading: ")
    assert "loading weights" in [step.detail for step in life.loading() if not step.downloading]
