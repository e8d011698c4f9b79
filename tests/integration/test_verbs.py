"""The verbs against an agent as it is in production: asked, stopped, started in the background, and stopped again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass

from support.network import SECONDS_MAX, Network, NodeProcess, a_network
from support.processes import alive


@dataclass(frozen=True)
class Said:
    """What a command printed, and what it ended with."""

    code: int
    out: str
    err: str


async def begun(node: NodeProcess, *words: str) -> asyncio.subprocess.Process:
    """A verb that begins, as the node's owner types it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
    environment |= {"SHRK_CONFIG": str(node.directory / "config.toml"), "SHRK_STATE_DIR": str(node.directory)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from shrk_cli.main import main; main()", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def shrk(node: NodeProcess, *words: str) -> Said:
    """A verb, from its beginning to its end."""
    process = await begun(node, *words)
    async with asyncio.timeout(SECONDS_MAX):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def test_an_owner_sees_stops_and_starts_the_agent() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic", "m", slots=8)
        waited = await shrk(node, "wait", "--for", "online", "--timeout", "60")
        assert waited.code == 0, waited
        seen = await shrk(node, "status", "--json")
        document = json.loads(seen.out)
        assert (seen.code, document["schema"], document["state"], document["pid"]) == (0, 1, "online", node.pid)
        assert (await shrk(node, "models")).out.splitlines()[1].split() == ["m", "online", "0/8"]

        stopped = await shrk(node, "stop")
        assert stopped.code == 0, stopped
        assert stopped.err.startswith("Stopping: no answers under way"), stopped
        async with asyncio.timeout(SECONDS_MAX):
            assert await network.nodes.pop("attic").process.wait() == 0
        again = await shrk(node, "stop")
        assert (again.code, again.err) == (0, ""), again
        await in_the_background(network, node)


async def in_the_background(network: Network, node: NodeProcess) -> None:
    """The agent's second life, as nobody's child."""
    started = await shrk(node, "start")
    assert started.code == 0, started
    pid = int(started.out.partition("(pid ")[2].partition(")")[0])
    try:
        assert os.getsid(pid) == pid, "it would end with this terminal"
        await network.until_serving("m", 1)
        assert f"runs already (pid {pid})" in (await shrk(node, "start")).out
        stopped = await shrk(node, "stop", "--now")
        assert stopped.code == 0, stopped
        assert alive([pid]) == []
        assert "stopped" in (node.directory / "logs" / "agent.log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_a_stop_waits_for_the_answer_under_way_until_a_stop_now() -> None:
    async with a_network() as network:
        node = await network.add_simulated("attic", "m", slots=8, tokens_per_second=1)
        await network.until_serving("m", 1)
        asked = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        endless = {**asked, "max_tokens": 4000, "ignore_eos": True}
        async with (
            network.session() as session,
            session.post(f"{network.base_url}/chat/completions", json=endless) as answer,
        ):
            assert (await answer.content.readline()).startswith(b"data: ")
            stopping = await begun(node, "stop")
            assert stopping.stderr is not None
            async with asyncio.timeout(SECONDS_MAX):
                assert (await stopping.stderr.readline()).startswith(b"Stopping: 1 answer under way")
            now = await shrk(node, "stop", "--now")
            assert now.code == 0, now
            async with asyncio.timeout(SECONDS_MAX):
                await stopping.communicate()
                assert stopping.returncode == 0
                assert await network.nodes.pop("attic").process.wait() == 0
