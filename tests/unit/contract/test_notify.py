"""What a service overseer hears, on a real datagram socket."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shrk_contract.notify import Overseer
from shrk_contract.service import run_until_signalled


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    """An overseer's socket; its path is short, as the kernel wants it."""
    with (
        tempfile.TemporaryDirectory(prefix="shrk-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        listening.bind(str(Path(folder) / "notify"))
        listening.setblocking(False)
        yield listening


def heard(ear: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(ear.recv(100).decode())
        except BlockingIOError:
            return words


def test_an_overseer_hears_of_the_beginning_and_of_the_end(ear: socket.socket) -> None:
    overseer = Overseer.of({"NOTIFY_SOCKET": ear.getsockname()}, pid=1)
    overseer.ready()
    overseer.stopping()
    assert heard(ear) == ["READY=1", "STOPPING=1"]


def test_a_watchdog_hears_three_times_within_its_patience_and_no_more_often(ear: socket.socket) -> None:
    overseer = Overseer.of({"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "30000000"}, pid=1)
    for quarter in range(4 * 30):
        overseer.turned(1000 + quarter / 4)
    assert heard(ear) == ["WATCHDOG=1"] * 3


def test_an_end_that_takes_longer_than_the_unit_allows_says_so(ear: socket.socket) -> None:
    Overseer.of({"NOTIFY_SOCKET": ear.getsockname()}, pid=1).lasting(640.0)
    assert heard(ear) == ["EXTEND_TIMEOUT_USEC=640000000"]


def test_a_loop_that_does_not_turn_is_not_heard(ear: socket.socket) -> None:
    Overseer.of({"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "30000000"}, pid=1).ready()
    assert heard(ear) == ["READY=1"]


def test_without_a_watchdog_turns_are_not_told(ear: socket.socket) -> None:
    Overseer.of({"NOTIFY_SOCKET": ear.getsockname()}, pid=1).turned(1.0)
    assert heard(ear) == []


def test_a_watchdog_for_another_process_is_left_alone(ear: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "7"}
    Overseer.of(environment, pid=8).turned(1.0)
    assert heard(ear) == []
    Overseer.of(environment, pid=7).turned(1.0)
    assert heard(ear) == ["WATCHDOG=1"]


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses an abstract name
        listening.setblocking(False)
        name: bytes = listening.getsockname()
        Overseer("@" + name[1:].decode()).ready()
        assert heard(listening) == ["READY=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_an_overseer_nothing_happens(environment: dict[str, str]) -> None:
    overseer = Overseer.of(environment | {"WATCHDOG_USEC": "1"}, pid=1)
    overseer.ready()
    overseer.turned(1.0)
    overseer.stopping()
    overseer.lasting(1.0)


class Brief:
    """A service that wants to end as soon as it has begun."""

    def __init__(self, ear: socket.socket) -> None:
        self._ear = ear
        self.heard_before_ready: list[str] = []
        self.heard_at_drain: list[str] = []

    async def start(self) -> None:
        import asyncio
        import os
        import signal

        self.heard_before_ready = heard(self._ear)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    async def drain(self) -> None:
        self.heard_at_drain = heard(self._ear)

    async def stop(self) -> None:
        pass


async def test_a_service_is_ready_once_it_is_open_and_stops_as_it_drains(ear: socket.socket) -> None:
    service = Brief(ear)
    await run_until_signalled(service, Overseer(ear.getsockname()))
    assert service.heard_before_ready == []
    assert service.heard_at_drain == ["READY=1", "STOPPING=1"]
