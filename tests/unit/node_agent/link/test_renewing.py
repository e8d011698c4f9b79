"""A certificate's renewal as the agent sees it, against a coordinator played by hand over real gRPC."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shrk_contract.service import running
from shrk_contract.terms import PROTOCOL
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_contract.v1.refusal_pb2 import ProtocolVersion, Refusal
from shrk_node_agent.attempts import AttemptSink, Finished, Order
from shrk_node_agent.link.dial import RENEWAL_RETRY_SECONDS, Dialler
from shrk_node_agent.link.identity import Identity
from shrk_node_agent.link.line import LINGER_SECONDS
from shrk_node_agent.link.renewal import LateIdentity, Renewal, RenewalUnreachable, renewal_due_ms
from shrk_node_agent.link.session import SessionPort
from shrk_node_agent.state.events import AttemptKey
from support.raw_coordinator import Frame, NodesEnd, RawCoordinator, raw_coordinator, unix_ms
from support.states import a_report

CHAT = report_pb2.ENDPOINT_CHAT_COMPLETIONS
HOUR_MS = 3600 * 1000


def welcome(minor: int = PROTOCOL[1]) -> Frame:
    """Of a coordinator of this minor version."""
    return Frame(welcome=link_pb2.Welcome(node_id="node_a", protocol=ProtocolVersion(major=PROTOCOL[0], minor=minor)))


START = Frame(start=link_pb2.Start(stream=7, endpoint=CHAT, model="m", body_bytes=2, body=b"{}"))


@dataclass
class Desk:
    """Stands for the rest of the agent; its clock is fast until a certificate is saved."""

    ahead_ms: int = 17 * HOUR_MS
    sinks: list[AttemptSink] = field(default_factory=list)
    saved: list[Identity] = field(default_factory=list)
    #: What was paused for in vain, and what is asked of the disk.
    pauses: list[float] = field(default_factory=list)
    retried: asyncio.Event = field(default_factory=asyncio.Event)

    def clock(self) -> int:
        return unix_ms() + self.ahead_ms

    def order(self, key: AttemptKey, order: Order, sink: AttemptSink) -> None:
        self.sinks.append(sink)

    async def save(self, identity: Identity) -> None:
        self.saved.append(identity)
        self.ahead_ms = 0

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if seconds == RENEWAL_RETRY_SECONDS:
            self.retried.set()
        await asyncio.sleep(0.001)

    async def late(self, identity: Identity, address: str) -> LateIdentity:
        raise RenewalUnreachable("Nobody is there.", "Wait.")


@asynccontextmanager
async def dialling(coordinator: RawCoordinator, desk: Desk) -> AsyncIterator[Dialler]:
    dialler = Dialler(
        identity=coordinator.identity,
        addresses=(coordinator.address,),
        incarnation=1,
        agent_version="test",
        port=SessionPort(desk.order, lambda sink: None, lambda key: None, lambda *words: None),
        report=lambda: a_report("m"),
        lost=lambda session: None,
        changed=lambda: None,
        clock=desk.clock,
        monotonic=asyncio.get_running_loop().time,
        fraction=lambda: 0.5,
        renewal=Renewal(desk.save, desk.late, desk.pause),
        start_id=b"this start",
    )
    async with running(dialler.run(), "dialler"):
        yield dialler


async def until_said(node: NodesEnd, kind: str) -> link_pb2.NodeFrame:
    """The node's next frame of this kind."""
    while True:
        for frame in await node.frames():
            if frame.WhichOneof("frame") == kind:
                return frame


class Played:
    """A coordinator that renews, and what it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator: RawCoordinator | None = None
        self.second = asyncio.Event()
        self.finished = asyncio.Event()
        self.ended = asyncio.Event()
        self.refusals: list[Refusal] = []

    async def welcome(self, node: NodesEnd) -> None:
        assert self.coordinator is not None
        if self.coordinator.links > 1:
            await node.send(welcome())
            self.second.set()
            await asyncio.Event().wait()
        await node.send(welcome(), START)
        asked = await until_said(node, "renew")
        while self.refusals:
            await node.send(Frame(renewed=link_pb2.Renewed(refusal=self.refusals.pop())))
            asked = await until_said(node, "renew")
        signed = self.coordinator.authority.sign_node(asked.renew.csr_pem, "node_a", unix_ms())
        renewed = link_pb2.Renewed(certificate_pem=signed.pem, ca_pem=self.coordinator.authority.ca_pem)
        await node.send(Frame(renewed=renewed))
        await until_said(node, "finish")
        self.finished.set()
        try:
            await until_said(node, "nothing of the kind")
        except AttributeError:  # the end of the stream has no frames
            self.ended.set()


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[tuple[Played, RawCoordinator]]:
    play = Played(folder)
    async with raw_coordinator(folder, play.welcome) as coordinator:
        play.coordinator = coordinator
        yield play, coordinator


async def test_what_runs_on_the_old_link_is_answered_there_while_the_new_one_is_open(tmp_path: Path) -> None:
    desk = Desk()
    async with played(tmp_path) as (play, coordinator), dialling(coordinator, desk) as dialler:
        await play.second.wait()
        assert not play.ended.is_set()
        [sink] = desk.sinks
        sink.finish(Finished(()))
        await play.finished.wait()
        await play.ended.wait()
        assert LINGER_SECONDS in desk.pauses
        first, second = coordinator.hellos
        assert (first.renews, second.renews) == (False, True)
        assert (first.start_id, first.incarnation) == (second.start_id, second.incarnation) == (b"this start", 1)
        assert [identity.node_id for identity in desk.saved] == ["node_a"]
        assert (dialler.status.links, dialler.status.state) == (2, "connected")


async def test_a_renewal_that_is_refused_is_asked_for_again_after_a_while(tmp_path: Path) -> None:
    desk = Desk()
    async with played(tmp_path) as (play, coordinator):
        play.refusals = [Refusal(message="Not now.", remedy="Later.")]
        async with dialling(coordinator, desk):
            await desk.retried.wait()
            await play.second.wait()


async def test_a_coordinator_that_is_older_is_not_asked(tmp_path: Path) -> None:
    said: list[str | None] = []
    enough = asyncio.Event()

    async def play(node: NodesEnd) -> None:
        await node.send(welcome(minor=0))
        for _ in range(2):
            said.extend(frame.WhichOneof("frame") for frame in await node.frames())
            dialler.report_soon()
        enough.set()
        await asyncio.Event().wait()

    desk = Desk(ahead_ms=17 * HOUR_MS)
    async with raw_coordinator(tmp_path, play) as coordinator, dialling(coordinator, desk) as dialler:
        await enough.wait()
    assert set(said) == {"report"}


def test_a_certificate_is_due_at_67_percent_of_its_life_give_or_take_five(tmp_path: Path) -> None:
    now = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    identity = Identity("a", b"", b"", b"", (), "", not_before=now, not_after=now + dt.timedelta(hours=100))
    hours = [(renewal_due_ms(identity, fraction) / 1000 - now.timestamp()) / 3600 for fraction in (0.0, 0.5, 1.0)]
    assert hours == pytest.approx([62.0, 67.0, 72.0])
