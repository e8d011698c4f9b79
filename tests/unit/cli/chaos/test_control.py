"""The control socket: who may use it, what it understands, and that it leaves nothing behind."""

from __future__ import annotations

import json
import random
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from shrk_cli.chaos.control import BODY_BYTES_MAX, control_socket, cut
from shrk_cli.chaos.faults import Cut, Direction, FaultRefused, Flow
from shrk_cli.chaos.proxy import ChaosProxy
from shrk_cli.errors import Exit, Trouble

#: Nobody is dialled in these tests.
NOBODY = ("127.0.0.1", 9)


@pytest.fixture
def path() -> Iterator[Path]:
    # Short, since a socket lives below it.
    with TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        yield Path(folder) / "control.sock"


@asynccontextmanager
async def controlled(path: Path) -> AsyncIterator[tuple[ChaosProxy, aiohttp.ClientSession]]:
    async with (
        ChaosProxy.open(to=NOBODY, dice=random.Random(1)) as proxy,
        control_socket(proxy, path),
        aiohttp.ClientSession("http://proxy", connector=aiohttp.UnixConnector(str(path))) as session,
    ):
        yield proxy, session


async def refusal(session: aiohttp.ClientSession, path: str, body: object) -> dict[str, str]:
    """What the proxy says no with."""
    async with session.post(path, data=body if isinstance(body, bytes) else json.dumps(body)) as response:
        assert response.status == 400
        error: dict[str, str] = (await response.json())["error"]
        assert error["what"]
        assert error["remedy"]
        return error


async def test_only_its_owner_may_use_the_socket_and_it_is_gone_at_the_end(path: Path) -> None:
    async with controlled(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()


async def test_the_status_tells_addresses_faults_and_counters(path: Path) -> None:
    async with controlled(path) as (proxy, session):
        proxy.set(Direction.UP, delay_ms=30, rate_bytes_per_second=125_000)
        proxy.freeze(Direction.DOWN)
        async with session.get("/status") as response:
            document = await response.json()
    nothing = {"passed_bytes": 0, "dropped_bytes": 0, "held_bytes": 0}
    assert document == {
        "schema": 1,
        "listen": f"127.0.0.1:{proxy.port}",
        "to": "127.0.0.1:9",
        "refuse": False,
        "connections": {"open": 0, "open_max": 400, "accepted": 0, "refused": 0, "unreached": 0, "reset": 0},
        "up": nothing
        | {
            "delay_ms": 30,
            "jitter_ms": 0,
            "rate_bytes_per_second": 125_000,
            "truncate_after_bytes": None,
            "flow": "pass",
        },
        "down": nothing
        | {
            "delay_ms": 0,
            "jitter_ms": 0,
            "rate_bytes_per_second": None,
            "truncate_after_bytes": None,
            "flow": "freeze",
        },
    }


async def test_faults_cuts_and_healing_take_hold_and_answer_with_the_status(path: Path) -> None:
    async with controlled(path) as (proxy, session):
        changes = {"delay_ms": 300, "jitter_ms": 5}
        async with session.post("/faults", json={"changes": changes, "direction": "up"}) as response:
            document = await response.json()
        assert document["up"]["delay_ms"] == proxy.line(Direction.UP).faults.delay_ms == 300
        assert document["down"]["delay_ms"] == proxy.line(Direction.DOWN).faults.delay_ms == 0
        async with session.post("/cut", json={"how": "half-open"}) as response:
            document = await response.json()
        assert (document["up"]["flow"], document["down"]["flow"]) == ("pass", "black-hole")
        async with session.post("/heal") as response:
            document = await response.json()
        assert (document["up"]["delay_ms"], document["down"]["flow"]) == (0, "pass")


@pytest.mark.parametrize(
    ("how", "direction", "flows"),
    [
        (Cut.BLACK_HOLE, None, (Flow.BLACK_HOLE, Flow.BLACK_HOLE)),
        (Cut.BLACK_HOLE, Direction.UP, (Flow.BLACK_HOLE, Flow.PASS)),
        (Cut.HALF_OPEN, None, (Flow.PASS, Flow.BLACK_HOLE)),
        (Cut.HALF_OPEN, Direction.UP, (Flow.BLACK_HOLE, Flow.PASS)),
        (Cut.FREEZE, Direction.BOTH, (Flow.FREEZE, Flow.FREEZE)),
        (Cut.REFUSE, None, (Flow.PASS, Flow.PASS)),
        (Cut.RST, None, (Flow.PASS, Flow.PASS)),
        (Cut.CLOSE, None, (Flow.PASS, Flow.PASS)),
    ],
)
async def test_each_cut_cuts_the_directions_that_it_names(
    how: Cut, direction: Direction | None, flows: tuple[Flow, Flow]
) -> None:
    async with ChaosProxy.open(to=NOBODY) as proxy:
        cut(proxy, how, direction)
        assert (proxy.line(Direction.UP).faults.flow, proxy.line(Direction.DOWN).faults.flow) == flows
        assert proxy.refusing == (how is Cut.REFUSE)


@pytest.mark.parametrize(
    ("how", "direction", "after_bytes", "field"),
    [
        (Cut.CLOSE, None, 5, "after_bytes"),
        (Cut.RST, None, -1, "after_bytes"),
        (Cut.RST, Direction.UP, None, "direction"),
        (Cut.REFUSE, Direction.UP, None, "direction"),
        (Cut.HALF_OPEN, Direction.BOTH, None, "direction"),
    ],
)
async def test_a_cut_that_means_nothing_is_refused(
    how: Cut, direction: Direction | None, after_bytes: int | None, field: str
) -> None:
    async with ChaosProxy.open(to=NOBODY) as proxy:
        with pytest.raises(FaultRefused) as refused:
            cut(proxy, how, direction, after_bytes)
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/faults", {"changes": {"delay_ms": -1}}, "delay_ms"),
        ("/faults", {"changes": {"flow": 5}}, "flow"),
        ("/faults", {"changes": {"delay": 1}}, "delay"),
        ("/faults", {"changes": {}}, "changes"),
        ("/faults", {"changes": {"delay_ms": 1}, "direction": "left"}, "direction"),
        ("/faults", {"delay_ms": 1}, "delay_ms"),
        ("/cut", {"how": "gently"}, "how"),
        ("/cut", {}, "how"),
        ("/cut", {"how": "rst", "after_bytes": "5"}, "after_bytes"),
        ("/cut", {"how": "refuse", "direction": "up"}, "direction"),
        ("/heal", {"now": True}, "now"),
        ("/heal", [], ""),
        ("/cut", b"{", ""),
        ("/cut", b"\xff\xfe\xfd", ""),
    ],
)
async def test_a_request_that_is_wrong_names_its_field_and_changes_nothing(
    path: Path, route: str, body: object, field: str
) -> None:
    async with controlled(path) as (_, session):
        before = await status_of(session)
        assert (await refusal(session, route, body))["field"] == field
        assert await status_of(session) == before


async def status_of(session: aiohttp.ClientSession) -> Any:
    async with session.get("/status") as response:
        return await response.json()


async def test_a_body_without_end_is_not_read(path: Path) -> None:
    async with controlled(path) as (_, session), session.post("/cut", data=b" " * (BODY_BYTES_MAX + 1)) as response:
        assert response.status == 413


async def test_what_a_dead_proxy_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    async with controlled(path) as (_, session):
        assert (await status_of(session))["schema"] == 1


async def test_a_living_proxy_keeps_its_socket(path: Path) -> None:
    async with controlled(path) as (_, session):
        with pytest.raises(Trouble, match="another proxy is steered by"):
            async with controlled(path):
                pytest.fail("two proxies on one socket")
        assert (await status_of(session))["schema"] == 1


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(Trouble) as trouble:
        async with controlled(path):
            pytest.fail("it took the file")
    assert trouble.value.code == Exit.USAGE
    assert "no socket" in trouble.value.why
    assert path.read_text() == "precious"


@pytest.mark.parametrize("place", ["/tmp/" + "deep/" * 30 + "s", "/proc/nowhere/s", "/dev/null/s"])
async def test_a_path_that_cannot_be_had_is_refused_with_its_option(place: str) -> None:
    with pytest.raises(Trouble, match=r"--control .* cannot be used"):
        async with controlled(Path(place)):
            pytest.fail("it took the path")
