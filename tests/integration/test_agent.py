"""An agent as its owner meets it: how it joins, what it says, and how it comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from shrk_coordinator.app import Coordinator
from support.network import Network, a_network, until


async def run_agent(folder: Path, toml: str, **env: str) -> tuple[int, str]:
    """Run an agent that is expected to end by itself; its status and what it said."""
    (folder / "config.toml").write_text(toml)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
    environment |= {"SHRK_CONFIG": str(folder / "config.toml"), **env}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shrk_node_agent", "run", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def settings(network: Network, folder: Path) -> str:
    assert network.coordinator.ports is not None
    return (
        f'controller = "tcp://127.0.0.1:{network.coordinator.ports.link}"\n'
        f'state_dir = "{folder}/node"\nengine = "sim"\n[catalogue.m]\nsource = "x"\n'
    )


async def test_without_a_join_token_the_owner_reads_how_to_get_one(network: Network, tmp_path: Path) -> None:
    status, said = await run_agent(tmp_path, settings(network, tmp_path))
    assert status == 1
    assert "shrk coordinator tokens create" in said
    assert "Traceback" not in said


async def test_a_used_join_token_is_refused_in_words(network: Network, tmp_path: Path) -> None:
    assert network.coordinator.ports is not None
    token = await network.token("someone")
    first = tmp_path / "first"
    first.mkdir()
    from shrk_node_agent.link.enrol import enrol

    await enrol(f"tcp://127.0.0.1:{network.coordinator.ports.link}", token, first, "host", "test")
    status, said = await run_agent(tmp_path, settings(network, tmp_path), SHRK_JOIN_TOKEN=token)
    assert status == 1
    assert "used" in said
    assert token not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("toml", "env", "words"),
    [
        ('modells = ["m"]\n', {}, "modells is not a setting; did you mean models?"),
        ("", {"SHRK_CONTROLER": "tcp://h:1"}, "did you mean SHRK_CONTROLLER?"),
        ('controller = "http://host"\n', {}, "controller: "),
        ('models = ["nobody"]\n[catalogue.m]\nsource = "x"\n', {}, "'nobody' is not in the catalogue, which holds m"),
        ('[catalogue.m]\nsource = "x"\nslots = 0\n', {}, "catalogue.m.slots: "),
        ('[catalogue.m]\nsorce = "x"\n', {}, "catalogue.m.sorce is not a setting; did you mean source?"),
        ("[sim]\nfirst_tokn_ms = 1\n", {}, "sim.first_tokn_ms is not a setting; did you mean first_token_ms?"),
        ("drain_seconds = -1\n", {}, "drain_seconds: "),
    ],
)
async def test_settings_that_cannot_be_used_end_the_command_with_5_and_the_remedy(
    tmp_path: Path, toml: str, env: dict[str, str], words: str
) -> None:
    status, said = await run_agent(tmp_path, toml, **env)
    assert (status, words in said) == (5, True), said
    assert "Traceback" not in said


async def test_an_agent_dials_again_when_its_coordinator_is_back() -> None:
    async with a_network() as network:
        await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        ports = network.coordinator.ports
        assert ports is not None
        await network.coordinator.stop()
        network.coordinator = again = Coordinator(
            network.coordinator._settings.model_copy(update={"link_listen": _at(ports.link)})
        )
        await again.start()
        await network.until_serving("m", 1)
        async with network.session() as session:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            async with session.post(f"{network.base_url}/chat/completions", json=body) as answer:
                assert answer.status == 200


async def test_a_node_follows_its_coordinator_to_a_new_address_when_its_owner_names_it() -> None:
    async with a_network() as network:
        await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        before = network.coordinator.ports
        await network.stop_node("one")
        await network.coordinator.stop()
        network.coordinator = moved = Coordinator(network.coordinator._settings)
        await moved.start()
        assert moved.ports is not None
        assert before is not None
        assert moved.ports.link != before.link, "it listens on any free port, and did not get the old one"
        node = await network.add_simulated("one", "m")  # the new address is in its settings; it is enrolled already
        await network.until_serving("m", 1)
        assert node.log().count('"event": "enrolled"') == 1


def _at(port: int) -> Any:
    from shrk_coordinator.settings import Address

    return Address("127.0.0.1", port)


async def test_an_agent_that_is_started_again_keeps_its_identity_and_leaves_no_old_engine() -> None:
    async with a_network() as network:
        node = await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        before = await node.status()
        os.kill(node.pid, signal.SIGKILL)
        await node.process.wait()
        await network.until_serving("m", 0)
        node = await network.add_simulated("one", "m")
        await network.until_serving("m", 1)
        after = await node.status()
        assert after["node_id"] == before["node_id"]
        assert not set(before["engines"][0]["pids"]) & set(after["engines"][0]["pids"])
        assert all(not Path(f"/proc/{pid}/cmdline").exists() or _dead(pid) for pid in before["engines"][0]["pids"])


def _dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


async def test_an_engine_that_dies_is_started_again_and_the_coordinator_hears_both(network: Network) -> None:
    node = network.nodes["three"]
    pid = (await node.status())["engines"][0]["pids"][0]
    os.kill(pid, signal.SIGKILL)
    await network.until_serving("m", 2)
    await network.until_serving("m", 3)
    assert (await node.status())["engines"][0]["pids"][0] != pid


async def test_the_status_says_what_runs_and_a_long_poll_waits_for_the_next_change(network: Network) -> None:
    status = await network.nodes["two"].status()
    assert (status["schema"], status["state"], status["link"], status["name"]) == (1, "online", "connected", "two")
    [engine] = status["engines"]
    assert (engine["model"], engine["state"], engine["slots"]) == ("m", "online", 64)
    assert engine["pids"]
    log = network.nodes["two"].log().splitlines()
    assert [json.loads(line)["event"] for line in log][:2] == ["enrolled", "linked"]


async def test_a_secret_is_nowhere_in_the_logs_or_the_processes(network: Network) -> None:
    for node in network.nodes.values():
        commands = Path(f"/proc/{node.pid}/cmdline").read_bytes()
        assert b"shrk_join_" not in commands
        assert "shrk_join_" not in node.log()
        for pid in (await node.status())["engines"][0]["pids"]:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"shrk_join_" not in environment
    await until(lambda: network.serving("m") == 3, "all nodes are as they were")


async def test_a_second_agent_on_the_same_folder_is_told_so_and_the_first_goes_on(network: Network) -> None:
    node = network.nodes["two"]
    before = (await node.status())["engines"][0]["pids"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shrk_node_agent", "run"),
        env={k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
        | {"SHRK_CONFIG": str(node.directory / "config.toml")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert f"another node agent (pid {node.pid})" in said.decode()
    assert "Traceback" not in said.decode()
    assert (await node.status())["engines"][0]["pids"] == before


async def test_a_node_without_a_catalogue_is_told_that_it_would_serve_nothing(network: Network, tmp_path: Path) -> None:
    status, said = await run_agent(tmp_path, settings(network, tmp_path).partition("[catalogue")[0])
    assert (status, "[catalogue.NAME]" in said) == (5, True), said
