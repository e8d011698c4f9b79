"""A node that says whatever a test wants: a real certificate, a real link, no agent behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from shrk_contract.convert import report_to_wire
from shrk_contract.terms import COORDINATOR_TLS_NAME, PROTOCOL
from shrk_contract.v1 import link_pb2, link_pb2_grpc
from shrk_contract.v1.refusal_pb2 import ProtocolVersion, Refusal
from shrk_node_agent.link.enrol import enrol
from shrk_node_agent.link.identity import Identity
from support.network import Network
from support.states import a_report

Frame = link_pb2.NodeFrame
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # grpc-stubs do not know it


def hello(major: int = PROTOCOL[0], minor: int = PROTOCOL[1], incarnation: int = 1) -> Frame:
    """A hello of any version."""
    return Frame(hello=link_pb2.Hello(protocol=ProtocolVersion(major=major, minor=minor), incarnation=incarnation))


@dataclass
class RawLink:
    """One open stream to the coordinator."""

    call: Any
    waiting: list[link_pb2.CoordinatorFrame] = field(default_factory=list)

    async def send(self, *frames: Frame) -> None:
        """One batch."""
        await self.call.write(link_pb2.NodeBatch(frames=frames))

    async def frame(self) -> link_pb2.CoordinatorFrame | None:
        """The next frame; None at the end of the stream."""
        while not self.waiting:
            async with asyncio.timeout(30):
                batch = await self.call.read()
            if batch is _END:
                return None
            self.waiting += batch.frames
        return self.waiting.pop(0)

    async def start(self) -> link_pb2.Start:
        """The next start frame."""
        while (frame := await self.frame()) is not None:
            if frame.WhichOneof("frame") == "start":
                return frame.start
        raise AssertionError("the link ended before a start")

    async def refusal(self) -> Refusal:
        """The coordinator's last word."""
        while (frame := await self.frame()) is not None:
            if frame.WhichOneof("frame") == "refusal":
                return frame.refusal
        raise AssertionError(f"the link ended without a refusal: {await self.call.details()}")

    async def serve(self, model: str) -> None:
        """Say hello, and claim to serve a model."""
        await self.send(hello())
        frame = await self.frame()
        assert frame is not None
        assert frame.WhichOneof("frame") == "welcome"
        await self.send(Frame(report=report_to_wire(a_report(model))))


async def an_identity(network: Network, folder: Path, owner: str) -> Identity:
    """A new node's identity, enrolled as an agent does."""
    assert network.coordinator.ports is not None
    controller = f"tcp://127.0.0.1:{network.coordinator.ports.link}"
    return await enrol(controller, await network.token(owner), folder, "raw", "test")


@contextlib.asynccontextmanager
async def a_link(
    network: Network, credentials: grpc.ChannelCredentials, options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[RawLink]:
    """An open stream; nothing has been said on it."""
    assert network.coordinator.ports is not None
    every = [
        ("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        *options,
    ]
    channel = grpc.aio.secure_channel(f"127.0.0.1:{network.coordinator.ports.link}", credentials, options=every)
    stub: Any = link_pb2_grpc.LinkServiceStub(channel)
    call = stub.Open()
    try:
        yield RawLink(call)
    finally:
        call.cancel()
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            await call.code()
        await channel.close(None)
