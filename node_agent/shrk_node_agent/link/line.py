"""One link: from its first packet to its end, and how it is left once a newer one has taken its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog

from shrk_contract.terms import (
    COORDINATOR_TLS_NAME,
    HEARTBEAT_SECONDS,
    KEEPALIVE_INTERVAL_MS,
    KEEPALIVE_TIMEOUT_MS,
    MESSAGE_BYTES_MAX,
    RENEWS_SINCE_MINOR,
    REPORT_INTERVAL_SECONDS,
    Report,
)
from shrk_contract.v1 import link_pb2, link_pb2_grpc
from shrk_contract.v1.refusal_pb2 import Refusal
from shrk_node_agent.link.identity import Identity
from shrk_node_agent.link.join_token import parse_controller
from shrk_node_agent.link.session import CoordinatorBrokeContract, Session, SessionPort

#: From the first packet to the welcome, over the worst line that is still of use.
WELCOME_SECONDS_MAX = 20.0
#: From the moment that a call is known to be over until its last frame is read: it has arrived already.
LAST_WORD_SECONDS_MAX = 2.0
#: gRPC ends a cancelled call within a tick; a link that is over must not keep the next one waiting for more.
CALL_END_SECONDS_MAX = 2.0
#: A coordinator answers a signing request with one look into its database and one signature.
RENEWED_SECONDS_MAX = 30.0
#: A link that is left hears for so long what was on its way when the newer one was welcomed.
LINGER_SECONDS = 2.0
#: Then it ends with the last answer that runs on it, and at the latest when no request can be left: the longest life
#: of a request.
LEAVE_SECONDS_MAX = 3_600.0
#: How often a link that is left looks whether anything runs on it still.
LEAVE_LOOK_SECONDS = 0.25

#: What `read` returns at the end of a stream; grpc-stubs do not know it.
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs

log = structlog.get_logger("shrk.link")


class LinkRefused(Exception):
    """The coordinator said no, in words for the owner."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.message} {refusal.remedy}".strip())
        self.refusal = refusal


class LinkDropped(Exception):
    """The link ended without a word."""


class Line:
    """One link over one connection of its own."""

    def __init__(
        self,
        identity: Identity,
        address: str,
        hello: link_pb2.Hello,
        port: SessionPort,
        report: Callable[[], Report],
        opened: Callable[[Line, str], None],
        closed: Callable[[Line], None],
        monotonic: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`opened` hears of the welcome and of the node's name in it, `closed` of the end of what was opened. `pause`
        waits for so many seconds."""
        self.session: Session | None = None
        #: Set with the welcome.
        self.welcomed = asyncio.Event()
        #: Whether the coordinator answers signing requests.
        self.renews = False
        self._identity = identity
        self._address = address
        self._hello = hello
        self._port = port
        self._report = report
        self._opened = opened
        self._closed = closed
        self._monotonic = monotonic
        self._pause = pause
        self._report_now = asyncio.Event()
        self._left = asyncio.Event()
        self._certificate: asyncio.Future[link_pb2.Renewed] | None = None

    def report_soon(self) -> None:
        """Send a report in this tick instead of the next interval."""
        self._report_now.set()

    def leave(self) -> None:
        """A newer link has taken its place: end it once nothing runs on it."""
        self._left.set()

    async def renew(self, csr_pem: str) -> link_pb2.Renewed:
        """What the coordinator says to a signing request. Raises TimeoutError."""
        assert self.session is not None, "only an open link renews"
        answer = self._certificate = asyncio.get_running_loop().create_future()
        self.session.renewed = lambda renewed: None if answer.done() else answer.set_result(renewed)
        self.session.renew(csr_pem)
        async with asyncio.timeout(RENEWED_SECONDS_MAX):
            renewed: link_pb2.Renewed = await answer
        return renewed

    async def run(self) -> None:
        """Hold the link; returns where it was left. Raises LinkRefused, LinkDropped, CoordinatorBrokeContract, or what
        gRPC and the network raise."""
        controller = parse_controller(self._address)
        target = controller.at(controller.port)
        channel = grpc.aio.secure_channel(target, self._identity.channel_credentials(), options=_OPTIONS)
        try:
            stub: Any = link_pb2_grpc.LinkServiceStub(channel)
            call = stub.Open()
            try:
                await self._converse(call)
            finally:
                await _end_call(call)
        finally:
            await channel.close(None)

    async def _converse(self, call: Any) -> None:
        sent_at = self._monotonic()

        async def write(frames: list[link_pb2.NodeFrame]) -> None:
            nonlocal sent_at
            try:
                await _write(call, frames)
                sent_at = self._monotonic()
            except (LinkDropped, grpc.RpcError):
                # Only the reader hears how the call ended, perhaps by a refusal: it speaks first.
                await asyncio.sleep(LAST_WORD_SECONDS_MAX)
                raise

        async with asyncio.timeout(WELCOME_SECONDS_MAX):
            await _write(call, [link_pb2.NodeFrame(hello=self._hello)])
            first = await _read(call)
        welcome = first.frames[0]
        if welcome.WhichOneof("frame") != "welcome":
            raise CoordinatorBrokeContract("the first frame is no welcome")
        session = self.session = Session(self._port, write)
        session.questions.coordinator_minor = welcome.welcome.protocol.minor
        interval = welcome.welcome.report_interval_ms / 1000 or REPORT_INTERVAL_SECONDS
        self.renews = welcome.welcome.protocol.minor >= RENEWS_SINCE_MINOR
        self._opened(self, welcome.welcome.node_id)
        self.welcomed.set()
        try:
            session.take(link_pb2.CoordinatorBatch(frames=first.frames[1:]))
            await _first_to_end(
                self._read_batches(call, session),
                session.outbox.run(),
                self._send_reports(session, interval),
                beat(
                    busy=lambda: bool(session.open_attempts()),
                    silence=lambda: self._monotonic() - sent_at,
                    say=session.outbox.beat,
                ),
                self._until_left(session),
            )
        finally:
            self._closed(self)

    async def _until_left(self, session: Session) -> None:
        """Return once the link was left and nothing runs on it any more."""
        await self._left.wait()
        await self._pause(LINGER_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS_MAX):
                while not session.is_idle():
                    await self._pause(LEAVE_LOOK_SECONDS)
                await session.outbox.flushed()

    async def _read_batches(self, call: Any, session: Session) -> None:
        while True:
            session.take(await _read(call))

    async def _send_reports(self, session: Session, interval: float) -> None:
        while True:
            self._report_now.clear()
            session.report(self._report())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._report_now.wait()


async def beat(
    busy: Callable[[], bool],
    silence: Callable[[], float],
    say: Callable[[], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """While `busy`, `say` something whenever `silence` has lasted HEARTBEAT_SECONDS. Runs until cancelled.

    One timer for a whole link: what is sent meanwhile moves it only when it goes off.
    """
    while True:
        left = HEARTBEAT_SECONDS - silence()
        if left <= 0:
            if busy():
                say()
            left = HEARTBEAT_SECONDS
        await pause(left)


async def _write(call: Any, frames: list[link_pb2.NodeFrame]) -> None:
    """One batch. Raises LinkDropped or grpc.RpcError where the call is over."""
    try:
        await call.write(link_pb2.NodeBatch(frames=frames))
    except asyncio.InvalidStateError as error:  # grpc.aio's word for a call that has ended well
        raise LinkDropped(await call.details() or "the coordinator closed the link") from error


async def _read(call: Any) -> link_pb2.CoordinatorBatch:
    """The next batch. Raises LinkRefused where it brings a refusal, LinkDropped at the end."""
    batch = await call.read()
    if batch is _END:
        raise LinkDropped(await call.details() or "the coordinator closed the link")
    for frame in batch.frames:
        if frame.WhichOneof("frame") == "refusal":
            raise LinkRefused(frame.refusal)
    if not batch.frames:
        raise CoordinatorBrokeContract("a batch without frames")
    return batch  # type: ignore[no-any-return]  # grpc-stubs do not type read()


async def _end_call(call: Any) -> None:
    """Cancel the call and see it end: one that is not awaited keeps its tasks (a known leak of grpc.aio)."""
    call.cancel()
    # Awaited in a task of its own, whose CancelledError (the call was cancelled) cannot be taken for one of ours.
    ending = asyncio.ensure_future(call.code())
    try:
        await asyncio.wait({ending}, timeout=CALL_END_SECONDS_MAX)
    finally:
        ending.cancel()


async def _first_to_end(*work: Awaitable[None]) -> None:
    """Run together until one raises; the others are cancelled. Of several that raise at once, the first given."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_OPTIONS = [
    ("grpc.ssl_target_name_override", COORDINATOR_TLS_NAME),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # Quiet links are the rule: pings must not be limited to times of traffic.
    ("grpc.http2.max_pings_without_data", 0),
    # Two agents in one process (tests) must not share a connection.
    ("grpc.use_local_subchannel_pool", 1),
]
