"""What the commands say about a proxy, and about one that is not there."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shrk_cli.chaos.control import control_socket, status
from shrk_cli.chaos.faults import Direction
from shrk_cli.chaos.proxy import ChaosProxy
from shrk_cli.chaos.steering import ask, status_text
from shrk_cli.errors import Exit, Trouble


@pytest.fixture
def path() -> Iterator[Path]:
    # Short, since a socket lives below it.
    with TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        yield Path(folder) / "control.sock"


async def test_a_status_is_told_in_lines_for_people() -> None:
    async with ChaosProxy.open(to=("127.0.0.1", 9), dice=random.Random(1)) as proxy:
        listen = f"127.0.0.1:{proxy.port}"
        assert status_text(status(proxy)).splitlines() == [
            f"{listen} → 127.0.0.1:9",
            "  connections  0 open, 0 accepted, 0 reset, 0 refused, 0 unreached",
            "  up           no faults; bytes: 0 passed, 0 dropped, 0 held",
            "  down         no faults; bytes: 0 passed, 0 dropped, 0 held",
        ]
        proxy.set(Direction.UP, delay_ms=50, jitter_ms=20, rate_bytes_per_second=125_000, truncate_after_bytes=4096)
        proxy.black_hole(Direction.DOWN)
        proxy.refuse()
        first, _, up, down = status_text(status(proxy)).splitlines()
        assert first.endswith("; new connections are refused")
        assert "delay 50 to 70 ms, 1,000 kbit/s, reset after 4,096 bytes;" in up
        assert "black hole;" in down


async def test_an_answer_is_the_status_and_a_refusal_is_a_usage_error(path: Path) -> None:
    async with ChaosProxy.open(to=("127.0.0.1", 9)) as proxy, control_socket(proxy, path):
        answer = await ask(path, "POST", "/faults", {"changes": {"delay_ms": 7}})
        assert answer["up"]["delay_ms"] == 7
        with pytest.raises(Trouble, match="half-open") as trouble:
            await ask(path, "POST", "/cut", {"how": "half-open", "direction": "both"})
        assert trouble.value.code == Exit.USAGE
        assert "black-hole" in trouble.value.remedy


async def test_a_proxy_that_is_not_there_is_told_with_the_command_that_starts_one(path: Path) -> None:
    with pytest.raises(Trouble, match="no chaos proxy answers at") as trouble:
        await ask(path, "GET", "/status")
    assert trouble.value.code == Exit.ERROR
    assert "shrk chaos proxy" in trouble.value.remedy
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(Trouble, match="no chaos proxy answers at"):
        await ask(path, "GET", "/status")


async def test_a_socket_of_somebody_else_is_not_talked_to(path: Path) -> None:
    async with ChaosProxy.open(to=("127.0.0.1", 9)) as proxy, control_socket(proxy, path):
        with pytest.raises(Trouble, match="belongs to somebody else"):
            await ask(path, "GET", "/status", uid=path.stat().st_uid + 1)
