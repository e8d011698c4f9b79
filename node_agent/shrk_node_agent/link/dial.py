"""Dials the coordinator, holds the link, and dials again: at once after a good link, then with full jitter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
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
    PROTOCOL,
    REPORT_INTERVAL_SECONDS,
    Report,
)
from shrk_contract.v1 import link_pb2, link_pb2_grpc
from shrk_contract.v1.refusal_pb2 import REFUSAL_CODE_NODE_SILENT, ProtocolVersion, Refusal
from shrk_node_agent.link.identity import Identity, IdentityError
from shrk_node_agent.link.join_token import parse_controller
from shrk_node_agent.link.session import CoordinatorBrokeContract, Session, SessionPort
from shrk_node_agent.state.backoff import DIAL, dial_failures

#: From the first packet to the welcome, over the worst line that is still of use.
WELCOME_SECONDS_MAX = 20.0
#: After a refusal that waiting cannot mend; the operator may still mend it.
PERMANENT_REFUSAL_SECONDS = 60.0
#: After any other refusal, whatever it says: a whole fleet may have been told "at once".
REFUSAL_SECONDS_MIN = 1.0
#: From the moment that a call is known to be over until its last frame is read: it has arrived already.
LAST_WORD_SECONDS_MAX = 2.0
#: gRPC ends a cancelled call within a tick; a link that is over must not keep the next one waiting for more.
CALL_END_SECONDS_MAX = 2.0

#: What `read` returns at the end of a stream; grpc-stubs do not know it.
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs

log = structlog.get_logger("shrk.link")


class LinkState(StrEnum):
    """How the link is, for people."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"


@dataclass(slots=True)
class LinkStatus:
    """The link as `shrk status` shows it."""

    state: LinkState = LinkState.CONNECTING
    reason: str = ""
    #: Links opened since the agent started.
    links: int = 0


class LinkRefused(Exception):
    """The coordinator said no, in words for the owner."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.message} {refusal.remedy}".strip())
        self.refusal = refusal


class LinkDropped(Exception):
    """The link ended without a word."""


class Dialler:
    """Keeps one link open until cancelled."""

    def __init__(
        self,
        identity: Identity,
        addresses: Sequence[str],
        incarnation: int,
        agent_version: str,
        port: SessionPort,
        report: Callable[[], Report],
        lost: Callable[[Session], None],
        changed: Callable[[], None],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        fraction: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`addresses` are `tcp://host:port`, best first. `lost` hears of every link's end, `changed` of every change
        of `status`. `clock` tells unix ms, `monotonic` seconds; `fraction` is random in [0, 1)."""
        self.status = LinkStatus()
        self.session: Session | None = None
        self._identity = identity
        self._addresses = addresses
        self._incarnation = incarnation
        self._agent_version = agent_version
        self._port = port
        self._report = report
        self._lost = lost
        self._changed = changed
        self._clock = clock
        self._monotonic = monotonic
        self._fraction = fraction
        self._pause = pause
        self._welcomed_at: float | None = None
        self._report_now = asyncio.Event()

    def report_soon(self) -> None:
        """Send a report in this tick instead of the next interval."""
        self._report_now.set()

    async def run(self) -> None:
        """Dial for ever."""
        failures = position = 0
        while True:
            self._welcomed_at = None
            wait = await self._one_link(self._addresses[position % len(self._addresses)])
            failures = dial_failures(failures, self._lived_seconds())
            if failures > 1 or self._welcomed_at is None:
                position += 1  # where a good link was, the next one is likeliest
            delay = wait if wait is not None else DIAL.delay(failures, self._fraction())
            if delay:
                log.info("dialling again", seconds=round(delay, 1))
            await self._pause(delay)

    def _lived_seconds(self) -> float:
        """How long the last link was up; 0 where there was no welcome."""
        return 0.0 if self._welcomed_at is None else self._monotonic() - self._welcomed_at

    async def _one_link(self, address: str) -> float | None:
        """One link from dialling to its end; seconds to wait where the coordinator named them."""
        try:
            self._identity.check_dates(self._clock())
            await self._hold(address)
        except LinkRefused as refused:
            refusal = refused.refusal
            if refusal.code == REFUSAL_CODE_NODE_SILENT:
                # The machine slept, or the line was dead: a lost link as any other, and nothing to be mended.
                self._set(LinkState.CONNECTING, str(refused))
                log.warning("link lost", address=address, why=refusal.message, remedy=refusal.remedy)
                return None
            self._set(LinkState.REFUSED, str(refused))
            log.error("the coordinator refused the link", why=refusal.message, remedy=refusal.remedy)
            if refusal.permanent:
                return PERMANENT_REFUSAL_SECONDS * (0.5 + self._fraction())
            # Not before the moment that was named, and not all nodes at once.
            return max(REFUSAL_SECONDS_MIN, refusal.retry_after_ms / 1000) * (1.0 + self._fraction())
        except IdentityError as error:
            self._set(LinkState.REFUSED, str(error))
            log.error("the node's identity cannot be used", why=str(error))
            return PERMANENT_REFUSAL_SECONDS
        except (LinkDropped, CoordinatorBrokeContract, ConnectionError, TimeoutError, grpc.RpcError) as error:
            self._set(LinkState.CONNECTING, _words(error))
            log.warning("link lost", address=address, why=_words(error))
        return None

    def _set(self, state: LinkState, reason: str) -> None:
        self.status.state, self.status.reason = state, reason
        self._changed()

    async def _hold(self, address: str) -> None:
        controller = parse_controller(address)
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

        major, minor = PROTOCOL
        hello = link_pb2.Hello(
            protocol=ProtocolVersion(major=major, minor=minor),
            incarnation=self._incarnation,
            agent_version=self._agent_version,
        )
        async with asyncio.timeout(WELCOME_SECONDS_MAX):
            await _write(call, [link_pb2.NodeFrame(hello=hello)])
            first = await _read(call)
        welcome = first.frames[0]
        if welcome.WhichOneof("frame") != "welcome":
            raise CoordinatorBrokeContract("the first frame is no welcome")
        session = self.session = Session(self._port, write)
        session.questions.coordinator_minor = welcome.welcome.protocol.minor
        self.status.links += 1
        self._welcomed_at = self._monotonic()
        interval = welcome.welcome.report_interval_ms / 1000 or REPORT_INTERVAL_SECONDS
        self._set(LinkState.CONNECTED, "")
        log.info("linked", node=welcome.welcome.node_id)
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
            )
        finally:
            self.session = None
            session.questions.end()
            self._lost(session)

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


def _words(error: BaseException) -> str:
    """An error for people: gRPC's own text is a page long."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error) or type(error).__name__


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
