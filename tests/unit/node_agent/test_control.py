"""The agent's control socket: what it does with those that ask in the moment in which it closes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shrk_node_agent.control import ControlSocket

#: Far above what anything here takes: it only ends a test that hangs.
SECONDS_MAX = 10.0


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_connects_as_it_closes_is_let_go(turns: int) -> None:
    # CPython 3.11 keeps a connection open, for nobody, that it accepted one turn of the loop before its server closed.
    with TemporaryDirectory(prefix="shrk-") as folder, socket.socket(socket.AF_UNIX) as asking:
        path = Path(folder) / "control.sock"
        control = ControlSocket(path, lambda: {"revision": 1})
        await control.open()
        asking.setblocking(False)
        asking.connect(str(path))
        asking.send(b"GET /status HTTP/1.1\r\nHost: shrk\r\n\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        await control.close()
        async with asyncio.timeout(SECONDS_MAX):
            await _read_to_the_end(asking)
        assert not path.exists()


async def _read_to_the_end(asking: socket.socket) -> None:
    try:
        while await asyncio.get_running_loop().sock_recv(asking, 4096):
            pass
    except ConnectionError:
        pass  # it was never accepted: that tells as well
