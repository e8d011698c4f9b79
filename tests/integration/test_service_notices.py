"""What systemd would hear of both services: that they are ready, that they turn, that they stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import SECONDS_MAX, a_network


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    """A datagram socket; its path is short, as the kernel wants it."""
    with (
        tempfile.TemporaryDirectory(prefix="shrk-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        listening.bind(str(Path(folder) / "notify"))
        listening.setblocking(False)
        yield listening


def notices(ear: socket.socket) -> dict[str, str]:
    """The environment in which systemd would start a service that it watches."""
    return {"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "300000"}


async def hear(ear: socket.socket, word: str) -> None:
    """Wait until this is said; what else is said counts for nothing."""
    async with asyncio.timeout(SECONDS_MAX):
        while await asyncio.get_running_loop().sock_recv(ear, 100) != word.encode():
            pass


async def test_a_coordinator_says_that_it_is_ready_turns_and_stops(ear: socket.socket, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")} | notices(ear)
    listen = ("--listen", "127.0.0.1:0", "--link-listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "c"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shrk_coordinator", "serve", *listen, env=environment
    )
    try:
        await hear(ear, "READY=1")
        await hear(ear, "WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        await hear(ear, "STOPPING=1")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def test_an_agent_says_that_it_is_ready_turns_and_stops(ear: socket.socket) -> None:
    async with a_network() as network:
        settings = 'engine = "sim"\ndrain_seconds = 600\n[catalogue.m]\nsource = "simulated"\n'
        node = await network.add_node("n", settings, notices(ear))
        await hear(ear, "READY=1")
        await hear(ear, "WATCHDOG=1")
        os.kill(node.pid, signal.SIGTERM)
        await hear(ear, "STOPPING=1")
        await hear(ear, "EXTEND_TIMEOUT_USEC=640000000")
