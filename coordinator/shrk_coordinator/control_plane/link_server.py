"""The port that nodes dial: opens links over gRPC, reads batches, and sees every link to its end.

A link's life: certificate -> hello -> (state admits) -> batches both ways -> refusal or close. Nothing a node
sends can raise past `Open`; what breaks the contract is answered with a typed refusal it can print.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog

from shrk_contract.terms import KEEPALIVE_INTERVAL_MS_MIN, MESSAGE_BYTES_MAX, PROTOCOL
from shrk_contract.v1 import link_pb2, link_pb2_grpc
from shrk_contract.v1.refusal_pb2 import (
    REFUSAL_CODE_CERTIFICATE_EXPIRED,
    REFUSAL_CODE_CONTRACT_BROKEN,
    REFUSAL_CODE_COORDINATOR_STOPPING,
    REFUSAL_CODE_PROTOCOL_UNSUPPORTED,
    Refusal,
)
from shrk_coordinator.control_plane import ports
from shrk_coordinator.control_plane.links import ContractBroken, Link, Links
from shrk_coordinator.settings import Address
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.events import Event, NodeId

#: A node that opened a stream says hello at once.
HELLO_SECONDS_MAX = 10.0
#: Time for a last word (a refusal) to reach a node before its link is cut.
LAST_WORD_SECONDS_MAX = 2.0
#: Links at once; each costs about 42 KB. Beyond this another replica is due.
LINKS_MAX = 20_000

#: What `read` returns at the end of a stream; grpc-stubs do not know it.
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs

#: Attempts that one node can have kept over a lost link.
LIVE_ATTEMPTS_MAX = 10_000
#: 128 random bits, and as much again for whoever counts in something else.
START_ID_BYTES_MAX = 32
#: Streams one connection may open: a node needs one, and a second while it renews.
STREAMS_PER_CONNECTION_MAX = 4

Context = grpc.aio.ServicerContext[link_pb2.NodeBatch, link_pb2.CoordinatorBatch]

log = structlog.get_logger("shrk.link")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A node whose certificate is good."""

    node_id: NodeId
    #: Serial of the certificate, in hexadecimal.
    serial: str
    owner: str
    #: Seconds until the certificate ends, and the link with it.
    valid_seconds: float


#: Looks at a peer's certificate: who it is, or why not.
Admit = Callable[[Context], Awaitable[Admitted | Refusal]]
#: Another certificate for a node: its id, the serial of the one it linked with, and its signing request.
Renew = Callable[[NodeId, str, str], Awaitable[link_pb2.Renewed]]


class LinkServer(link_pb2_grpc.LinkServiceServicer):
    """Serves links until `stop`."""

    def __init__(
        self,
        links: Links,
        admit: Admit,
        post: Callable[[Event], None],
        now: Callable[[], float],
        renew: Renew | None = None,
        asked: Callable[[Link, link_pb2.NodeFrame], None] = lambda link, frame: None,
    ) -> None:
        """Without `renew` nobody gets another certificate; `asked` hears what nodes ask about themselves."""
        self._renew = renew
        self._renewing: set[asyncio.Task[None]] = set()
        self._links = links
        self._admit = admit
        self._post = post
        self._now = now
        self._asked = asked
        self._closing: dict[int, asyncio.Event] = {}
        self._stopping = False

    def _close_soon(self, link: Link) -> None:
        if closing := self._closing.get(link.id):
            closing.set()

    def _renew_soon(self, link: Link, csr_pem: str) -> None:
        if self._renew is not None:
            task = asyncio.create_task(self._renewed(self._renew, link, csr_pem), name=f"link-renew-{link.id}")
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)

    async def _renewed(self, renew: Renew, link: Link, csr_pem: str) -> None:
        try:
            link.send(link_pb2.CoordinatorFrame(renewed=await renew(link.node_id, link.serial, csr_pem)))
        except Exception:
            log.exception("a certificate could not be renewed", node=link.node_id)

    def refuse_new(self) -> None:
        """From now on, new links are told to come back later."""
        self._stopping = True

    async def Open(self, request_iterator: AsyncIterator[link_pb2.NodeBatch], context: Context) -> None:  # type: ignore[override]  # read()/write() API: nothing is yielded
        """One link, from its first batch to its end."""
        admitted = await self._admit(context)
        if isinstance(admitted, Refusal):
            await _refuse(context, admitted)
            return
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                first = await _read(context)
            if first is None:
                raise ContractBroken("the stream ended before a hello")
            hello = _hello(first)
        except TimeoutError:
            await _refuse(context, _contract_broken(f"no hello within {HELLO_SECONDS_MAX:g} seconds"))
            return
        except ContractBroken as error:
            await _refuse(context, _contract_broken(str(error)))
            return
        if refusal := self._reason_to_refuse(hello):
            await _refuse(context, refusal)
            return
        await self._serve(context, admitted, hello, first)

    def _reason_to_refuse(self, hello: link_pb2.Hello) -> Refusal | None:
        if hello.protocol.major != PROTOCOL[0]:
            return Refusal(
                code=REFUSAL_CODE_PROTOCOL_UNSUPPORTED,
                message=f"This coordinator speaks protocol {PROTOCOL[0]}, the agent speaks {hello.protocol.major}.",
                remedy="Update the agent." if hello.protocol.major < PROTOCOL[0] else "Update the coordinator.",
                permanent=True,
            )
        if self._stopping or len(self._closing) >= LINKS_MAX:
            return Refusal(
                code=REFUSAL_CODE_COORDINATOR_STOPPING,
                message="The coordinator takes no new links now.",
                remedy="Nothing to do: the agent dials again by itself.",
                retry_after_ms=5000,
            )
        return None

    async def _serve(
        self, context: Context, admitted: Admitted, hello: link_pb2.Hello, first: link_pb2.NodeBatch
    ) -> None:
        async def write(frames: list[link_pb2.CoordinatorFrame]) -> None:
            await context.write(link_pb2.CoordinatorBatch(frames=frames))

        live = [attempt.stream for attempt in hello.live_attempts]
        link = Link(
            self._links.new_id(),
            admitted.node_id,
            admitted.serial,
            live,
            self._post,
            self._now,
            write,
            self._close_soon,
            self._renew_soon,
            self._asked,
        )
        closing = self._closing[link.id] = asyncio.Event()
        self._links.add(link)
        address = host_of(context.peer())
        said = seen.NodeHello(
            self._now(),
            admitted.node_id,
            link.id,
            hello.incarnation,
            admitted.owner,
            address,
            start_id=hello.start_id,
            renews=hello.renews,
        )
        self._post(said)
        reader = asyncio.create_task(self._read(context, link, first), name=f"link-read-{link.id}")
        writer = asyncio.create_task(link.outbox.run(), name=f"link-write-{link.id}")
        asked = asyncio.create_task(closing.wait(), name=f"link-close-{link.id}")
        reason = "the connection ended"
        try:
            done, _ = await asyncio.wait(
                (reader, writer, asked), timeout=admitted.valid_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                link.refuse(_certificate_expired())
            reason = _reason(link, reader, writer)
        finally:
            # First the facts, then the farewell: a cancelled handler must not leave a link behind.
            self._links.remove(link)
            del self._closing[link.id]
            self._post(seen.LinkClosed(self._now(), link.node_id, link.id, reason))
            log.info("link closed", node=link.node_id, why=reason)
            if link.refusal is not None and not writer.done():
                # A write that is cancelled under way would leave the stream unusable for the last word.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORD_SECONDS_MAX):
                        await link.outbox.flushed()
            for task in (reader, writer, asked):
                task.cancel()
            await asyncio.gather(reader, writer, asked, return_exceptions=True)
        if link.refusal is not None:
            await _refuse(context, link.refusal)

    async def _read(self, context: Context, link: Link, first: link_pb2.NodeBatch) -> None:
        """Take in batches to the end of the stream; `first` is what came with the hello."""
        del first.frames[0]
        batch: link_pb2.NodeBatch | None = first
        while batch is not None:
            try:
                link.take(batch)
                batch = await _read(context)
            except ContractBroken as error:
                link.refuse(_contract_broken(str(error)))
                return


async def _read(context: Context) -> link_pb2.NodeBatch | None:
    """The next batch, None at the end. Raises ContractBroken where it cannot be read, and what gRPC raises."""
    try:
        batch: Any = await context.read()
    except (grpc.RpcError, grpc.aio.UsageError, ConnectionError):
        raise
    except Exception as error:
        # What gRPC raises for bytes that are no batch is not documented, and a node chooses those bytes.
        log.warning("a message that cannot be read", why=repr(error))
        raise ContractBroken("a message that cannot be read") from error
    return None if batch is _END else batch


def host_of(peer: str) -> str:
    """The host in what gRPC calls a peer: `ipv4:192.0.2.1:5000`, `ipv6:%5B2001:db8::1%5D:5000`; empty for others."""
    kind, _, address = peer.partition(":")
    return unquote(address).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def _hello(batch: link_pb2.NodeBatch) -> link_pb2.Hello:
    """The hello that a link begins with. Raises ContractBroken."""
    if not batch.frames or batch.frames[0].WhichOneof("frame") != "hello":
        raise ContractBroken("the first frame is not a hello")
    hello = batch.frames[0].hello
    if len(hello.live_attempts) > LIVE_ATTEMPTS_MAX:
        raise ContractBroken(f"a hello with {len(hello.live_attempts):,} live attempts")
    if len(hello.start_id) > START_ID_BYTES_MAX:
        raise ContractBroken(f"a hello with {len(hello.start_id):,} bytes of start_id")
    # A copy: the frame is about to be taken out of its batch.
    return link_pb2.Hello.FromString(hello.SerializeToString())


def _reason(link: Link, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> str:
    """Why a link ended, for the log and for `shrk why`."""
    if link.refusal is not None:
        return link.refusal.message
    for task in (reader, writer):
        if task.done() and not task.cancelled() and (error := task.exception()):
            if not isinstance(error, (grpc.RpcError, grpc.aio.AioRpcError, grpc.aio.UsageError, ConnectionError)):
                log.error("link failed", node=link.node_id, exc_info=error)
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "the node closed it"


async def _refuse(context: Context, refusal: Refusal) -> None:
    """Send the last word, then end the call with the same words as its status."""
    log.info("link refused", why=refusal.message, peer=context.peer())
    frame = link_pb2.CoordinatorFrame(refusal=refusal)
    # The node may be gone already, and then there is nobody left to tell.
    with contextlib.suppress(grpc.RpcError, grpc.aio.UsageError, asyncio.TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS_MAX):
            await context.write(link_pb2.CoordinatorBatch(frames=[frame]))
    status = grpc.StatusCode.FAILED_PRECONDITION if refusal.permanent else grpc.StatusCode.UNAVAILABLE
    context.set_code(status)
    context.set_details(f"{refusal.message} {refusal.remedy}")


def _contract_broken(what: str) -> Refusal:
    return Refusal(
        code=REFUSAL_CODE_CONTRACT_BROKEN,
        message=f"The agent broke the contract: {what}.",
        remedy="Update the agent; if it is current, report this.",
        retry_after_ms=5000,
    )


def _certificate_expired() -> Refusal:
    return Refusal(
        code=REFUSAL_CODE_CERTIFICATE_EXPIRED,
        message="The node's certificate has expired.",
        remedy="The agent renews it by itself and dials again; one that does not must be updated, or enrolled again.",
        retry_after_ms=1_000,
    )


def server_options() -> list[tuple[str, int]]:
    """gRPC settings of the link port; each is there because its default would hurt."""
    return [
        # On by default, two processes would share a busy port and each get half the nodes.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # Agents ping every 20 s to keep NAT tables warm; the default answers that with GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_INTERVAL_MS_MIN),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_INTERVAL_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


async def serve_links(
    servicer: LinkServer, credentials: grpc.ServerCredentials, listen: Address
) -> tuple[grpc.aio.Server, int]:
    """Start serving; the port is told because 0 may have been asked for. Raises PortBusy."""
    server = grpc.aio.server(options=server_options(), maximum_concurrent_rpcs=2 * LINKS_MAX)
    link_pb2_grpc.add_LinkServiceServicer_to_server(servicer, server)
    port = await ports.start(server, listen, credentials, "nodes cannot be heard", "--link-listen")
    return server, port
