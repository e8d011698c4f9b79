"""`shrk chaos` as people run it: a proxy in one process, the commands that steer it in others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from support.loopback import Peer, dial, listening

SHRK = Path(sys.prefix) / "bin" / "shrk"


@dataclass
class Running:
    """A `shrk chaos proxy`, and what it said when it was ready."""

    process: asyncio.subprocess.Process
    control: Path
    ready: dict[str, Any]

    @property
    def port(self) -> int:
        return int(self.ready["listen"].rpartition(":")[2])

    async def steer(self, *arguments: str) -> dict[str, Any]:
        """Run a command that must succeed; its answer."""
        code, said, complained = await shrk("chaos", *arguments, "--control", str(self.control), "--json")
        assert code == 0, complained
        answer: dict[str, Any] = json.loads(said)
        return answer


async def shrk(*arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of one command."""
    process = await asyncio.create_subprocess_exec(
        *(str(SHRK), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    return process.returncode, said.decode(), complained.decode()


@asynccontextmanager
async def running(control: Path, to: tuple[str, int], *options: str) -> AsyncIterator[Running]:
    """A proxy on a free port, from its ready line to its end."""
    process = await asyncio.create_subprocess_exec(
        *(str(SHRK), "chaos", "proxy", "--listen", "127.0.0.1:0", "--to", f"{to[0]}:{to[1]}"),
        *("--control", str(control), "--json", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Running(process, control, json.loads(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def control() -> Iterator[Path]:
    # Short, since a socket lives below it.
    with TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        yield Path(folder) / "control.sock"


@pytest.fixture
async def target() -> AsyncIterator[Any]:
    """A listener that the test accepts from."""
    with listening() as listener:
        yield listener


async def pair(proxy: Running, target: Any) -> tuple[Peer, Peer]:
    """A connection through the proxy, with a byte passed each way: it is known to be whole."""
    dialler = await dial(proxy.port)
    end, _ = await asyncio.get_running_loop().sock_accept(target)
    peer = Peer(end)
    await dialler.send(b"?")
    assert await peer.receive(1) == b"?"
    await peer.send(b"!")
    assert await dialler.receive(1) == b"!"
    return dialler, peer


async def test_a_proxy_is_steered_from_other_processes_while_it_runs(control: Path, target: Any) -> None:
    async with running(control, target.getsockname(), "--delay-ms", "1", "--jitter-ms", "1", "--seed", "7") as proxy:
        assert proxy.ready["control"] == str(control)
        assert proxy.ready["up"]["delay_ms"] == proxy.ready["down"]["jitter_ms"] == 1
        dialler, peer = await pair(proxy, target)

        status = await proxy.steer("set", "--rate-kbit", "1000", "--direction", "up")
        assert (status["up"]["rate_bytes_per_second"], status["down"]["rate_bytes_per_second"]) == (125_000, None)
        assert status["up"]["delay_ms"] == 1, "what is not named stays"
        status = await proxy.steer("set", "--rate-kbit", "0")
        assert status["up"]["rate_bytes_per_second"] is None

        await proxy.steer("cut", "half-open", "--direction", "up")
        await dialler.send(b"lost")
        await peer.send(b"heard")
        assert await dialler.receive(5) == b"heard"
        status = await proxy.steer("status")
        while not status["up"]["dropped_bytes"]:
            status = await proxy.steer("status")
        assert (status["up"]["dropped_bytes"], status["up"]["flow"]) == (4, "black-hole")

        status = await proxy.steer("heal")
        assert await dialler.rest() == await peer.rest() == (b"", "rst")
        assert status["connections"]["reset"] == 1

        others = [await pair(proxy, target) for _ in range(2)]
        await proxy.steer("cut", "rst")
        assert [await end.rest() for ends in others for end in ends] == [(b"", "rst")] * 4
        for end in (dialler, peer, *(end for ends in others for end in ends)):
            end.close()


async def test_a_status_for_people_is_plain_text(control: Path, target: Any) -> None:
    async with running(control, target.getsockname()) as proxy:
        await proxy.steer("set", "--delay-ms", "300")
        code, said, complained = await shrk("chaos", "status", "--control", str(control))
        assert (code, complained) == (0, "")
        assert said.splitlines()[0] == f"127.0.0.1:{proxy.port} → {proxy.ready['to']}"
        assert "  up           delay 300 ms; bytes: 0 passed, 0 dropped, 0 held" in said
        assert "\x1b" not in said


async def test_a_cut_that_cannot_be_ends_with_a_remedy_and_the_code_for_usage(control: Path, target: Any) -> None:
    async with running(control, target.getsockname()):
        wrong = ("cut", "half-open", "--direction", "both")
        code, said, complained = await shrk("chaos", *wrong, "--control", str(control))
        assert (code, said) == (2, "")
        what, remedy = complained.splitlines()
        assert what == "shrk: half-open in both directions is a black hole"
        assert remedy == "  → ask for black-hole, or up or down"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_ends_it_with_its_connections_and_its_socket(
    control: Path, target: Any, number: signal.Signals
) -> None:
    async with running(control, target.getsockname()) as proxy:
        dialler, peer = await pair(proxy, target)
        os.kill(proxy.process.pid, number)
        assert await proxy.process.wait() == 0
        assert await dialler.rest() == await peer.rest() == (b"", "rst")
        assert not control.exists()
        dialler.close()
        peer.close()
    code, _, complained = await shrk("chaos", "heal", "--control", str(control))
    assert code == 1
    assert f"no chaos proxy answers at {control}" in complained


async def test_the_socket_of_a_killed_proxy_is_taken_over_and_that_of_a_living_one_is_not(
    control: Path, target: Any
) -> None:
    async with running(control, target.getsockname()) as proxy:
        proxy.process.kill()
        await proxy.process.wait()
        assert control.exists()
    to = "{}:{}".format(*target.getsockname())
    async with running(control, target.getsockname()) as proxy:
        code, said, complained = await shrk(
            *("chaos", "proxy", "--listen", "127.0.0.1:0", "--to", to, "--control", str(control))
        )
        assert (code, said) == (1, "")
        assert f"another proxy is steered by {control}" in complained
        assert (await proxy.steer("status"))["listen"] == proxy.ready["listen"]
