"""`shrk netcheck`: the step that fails, its direction, and what to do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shrk_node_agent.checklist import Line, Mark
from shrk_node_agent.control_client import NotAllowed, NotRunning
from shrk_node_agent.link import identity as identities
from shrk_node_agent.link import reach
from shrk_node_agent.link.join_token import Controller
from shrk_node_agent.netcheck import Way, _way, check, text
from support.identities import an_identity
from support.played_agent import STATUS, WHY
from support.raw_coordinator import NodesEnd, raw_coordinator
from support.somebody_else import as_somebody_else, closed


def well(method: str, path: str, seconds: float) -> dict[str, Any]:
    """An agent that is linked."""
    return {"/status": STATUS, "/why": WHY}[path]


def gone(method: str, path: str, seconds: float) -> dict[str, Any]:
    raise NotRunning(Path("/nowhere"), "there is no socket")


def clock() -> float:
    return 0.0


def marks(lines: list[Line]) -> dict[str, Mark]:
    return {line.name: line.mark for line in lines}


async def nobody(node: NodesEnd) -> None:
    raise AssertionError("netcheck must open no link: it would replace the agent's own")


@asynccontextmanager
async def listening(answer: bytes = b"") -> AsyncIterator[int]:
    """A port where somebody else answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_way_that_is_open_passes_every_step_and_opens_no_link(tmp_path: Path) -> None:
    async with raw_coordinator(tmp_path / "c", nobody) as coordinator:
        identities.save(tmp_path / "i", coordinator.identity)
        lines = await check(Way(coordinator.address, coordinator.identity, tmp_path / "i"), well, clock)
        assert coordinator.links == 0
    assert marks(lines) == {
        "name": Mark.PASSED,
        "tcp": Mark.PASSED,
        "tls": Mark.PASSED,
        "grpc": Mark.PASSED,
        "enrolment": Mark.SKIPPED,
        "link": Mark.PASSED,
        "from_there": Mark.PASSED,
    }
    assert lines[-1].reason.startswith("the coordinator sees this node come from 192.0.2.7")
    assert text(lines).endswith("The way to the coordinator is open.")


async def test_a_closed_port_is_the_way_out_that_fails_and_the_rest_is_not_tried(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = await check(Way(f"tcp://127.0.0.1:{port}", an_identity(tmp_path), tmp_path), gone, clock)
    assert [line.name for line in lines] == ["name", "tcp", "enrolment", "link", "from_there"]
    assert lines[1].reason == (
        f"this machine cannot reach 127.0.0.1:{port}: connection refused; the coordinator is not running there, or a "
        "firewall rejects it"
    )
    assert "the coordinator opens no connection to this machine" in lines[-1].reason
    assert f"What fails: this machine cannot reach 127.0.0.1:{port}" in text(lines)


async def test_a_name_that_means_nothing_is_told_as_that(tmp_path: Path) -> None:
    line = await reach.name(Controller("no-such-host.invalid", 9100))
    assert (line.mark, "cannot resolve no-such-host.invalid" in line.reason) == (Mark.FAILED, True)


async def test_a_port_that_never_answers_is_told_from_one_that_refuses() -> None:
    # A full backlog: the kernel drops what comes, as a firewall does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        filling = [socket.socket() for _ in range(4)]
        for end in filling:
            end.setblocking(False)
            end.connect_ex(("127.0.0.1", port))
        line = await reach.tcp(Controller("127.0.0.1", port), port, "tcp", clock, seconds=0.1)
        for end in filling:
            end.close()
    assert (line.mark, "no answer within 0.1 s; a firewall" in line.reason) == (Mark.FAILED, True)


async def test_a_certificate_of_another_ca_is_somebody_else(tmp_path: Path) -> None:
    other = an_identity(tmp_path / "other")
    identities.save(tmp_path / "i", other)
    async with raw_coordinator(tmp_path / "c", nobody) as coordinator:
        lines = await check(Way(coordinator.address, other, tmp_path / "i"), well, clock)
    assert marks(lines)["tls"] is Mark.FAILED
    assert "is not the coordinator that this node enrolled with" in lines[2].reason
    assert "grpc" not in marks(lines)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_port_that_speaks_no_tls_is_the_wrong_one(tmp_path: Path, answer: bytes) -> None:
    identity = an_identity(tmp_path / "c")
    identities.save(tmp_path / "i", identity)
    async with listening(answer) as port:
        line = await reach.tls(Controller("127.0.0.1", port), identity, tmp_path / "i")
    assert line.mark is Mark.FAILED
    assert line.next_action


@pytest.mark.parametrize(
    ("controller", "words"),
    [("", "nobody has named the coordinator"), ("http://h:1", "is not tcp://host:port")],
)
async def test_an_address_that_is_none_is_told_before_anything_is_tried(controller: str, words: str) -> None:
    [line] = await check(Way(controller, None, Path("/nowhere")), gone, clock)
    assert (line.mark, words in line.reason) == (Mark.FAILED, True)


async def test_a_join_token_that_was_damaged_in_copying_is_said_to_be() -> None:
    line = await reach.enrolment(Controller("127.0.0.1", 1), "shrk_join_x")
    assert (line.mark, "not complete" in line.reason) == (Mark.FAILED, True)


async def test_a_link_that_is_refused_is_told_with_the_coordinators_words(tmp_path: Path) -> None:
    def refused(method: str, path: str, seconds: float) -> dict[str, Any]:
        return {**STATUS, "link": "refused", "link_reason": "The node's certificate has been revoked."}

    async with raw_coordinator(tmp_path / "c", nobody) as coordinator:
        identities.save(tmp_path / "i", coordinator.identity)
        lines = await check(Way(coordinator.address, coordinator.identity, tmp_path / "i"), refused, clock)
    assert marks(lines)["link"] is Mark.FAILED
    assert "has been revoked" in text(lines)


def test_another_nodes_settings_are_needed_only_where_nothing_else_names_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHRK_CONTROLLER", raising=False)
    monkeypatch.setenv("SHRK_CONFIG", str(closed(tmp_path / "config.toml", "")))
    with as_somebody_else():
        with pytest.raises(NotAllowed, match="sudo"):
            _way(None, tmp_path)
        assert _way("tcp://h:1", tmp_path).controller == "tcp://h:1"
        identities.save(tmp_path / "identity", an_identity(tmp_path / "ca"))
        assert _way(None, tmp_path).controller == "tcp://127.0.0.1:9100"
