"""A coordinator that says whatever a test wants: a real certificate, a real port, nothing behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from shrk_contract.v1 import link_pb2, link_pb2_grpc
from shrk_coordinator.control_plane.authority import Authority
from shrk_node_agent.link.identity import Identity, new_identity
from support.certificates import csr_for, key_pem, p256

Frame = link_pb2.CoordinatorFrame
#: What becomes of one link, once its node said hello; the link ends with it.
Welcome = Callable[["NodesEnd"], Awaitable[None]]

WELCOME = Frame(welcome=link_pb2.Welcome(node_id="node_a"))


@dataclass
class NodesEnd:
    """One link, as its coordinator has it."""

    context: Any

    async def send(self, *frames: Frame) -> None:
        """One batch."""
        await self.context.write(link_pb2.CoordinatorBatch(frames=frames))

    async def frames(self) -> list[link_pb2.NodeFrame]:
        """The node's next batch."""
        return list((await self.context.read()).frames)


@dataclass
class RawCoordinator:
    """Where it listens, and who may link to it."""

    address: str
    identity: Identity
    authority: Authority
    #: Links opened so far.
    links: int = 0
    #: What nodes said first.
    hellos: list[link_pb2.Hello] = field(default_factory=list)


def unix_ms() -> int:
    """The real time: TLS looks at it."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def raw_coordinator(folder: Path, welcome: Welcome) -> AsyncIterator[RawCoordinator]:
    """Serve links on a free port until the block ends."""

    class Servicer(link_pb2_grpc.LinkServiceServicer):
        async def Open(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read()/write()
            coordinator.links += 1
            node = NodesEnd(context)
            [hello] = await node.frames()
            assert hello.WhichOneof("frame") == "hello"
            coordinator.hellos.append(hello.hello)
            await welcome(node)

    authority, key = Authority.open(folder, unix_ms), p256()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    link_pb2_grpc.add_LinkServiceServicer_to_server(Servicer(), server)
    address = f"tcp://127.0.0.1:{server.add_secure_port('127.0.0.1:0', authority.link_credentials())}"
    identity = new_identity(
        node_id="node_a",
        key_pem=key_pem(key),
        certificate_pem=authority.sign_node(csr_for(key), "node_a", unix_ms()).pem.encode(),
        ca_pem=authority.ca_pem.encode(),
        link_addresses=(address,),
        controller=address,
    )
    coordinator = RawCoordinator(address, identity, authority)
    await server.start()
    try:
        yield coordinator
    finally:
        await server.stop(None)
