"""Dials the coordinator, holds the link, and dials again: at once after a good link, then with full jitter.

A certificate is renewed over the link that was opened with the one before. The next link is opened with the new one,
and the old link ends with what runs on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
import grpc.aio
import structlog

from shrk_contract.terms import PROTOCOL, Report
from shrk_contract.v1 import link_pb2
from shrk_contract.v1.refusal_pb2 import (
    REFUSAL_CODE_CERTIFICATE_EXPIRED,
    REFUSAL_CODE_NODE_SILENT,
    ProtocolVersion,
)
from shrk_node_agent.link.identity import CertificateExpired, Identity, IdentityError
from shrk_node_agent.link.line import Line, LinkDropped, LinkRefused
from shrk_node_agent.link.renewal import Renewal, RenewalUnreachable, renewal_due_ms, signing_request
from shrk_node_agent.link.session import CoordinatorBrokeContract, Session, SessionPort
from shrk_node_agent.state.backoff import DIAL, dial_failures

#: After a refusal that waiting cannot mend; the operator may still mend it.
PERMANENT_REFUSAL_SECONDS = 60.0
#: After any other refusal, whatever it says: a whole fleet may have been told "at once".
REFUSAL_SECONDS_MIN = 1.0
#: Between two looks at the wall's clock, which may be set, and goes on while a machine sleeps.
RENEWAL_LOOK_SECONDS = 30.0
#: Between two renewals, whatever the dates say: an agent whose clock is most of a day fast must not renew without end.
RENEWAL_SECONDS_MIN = 3_600.0
#: After a renewal that failed: eight hours are left for some more, and coordinators are not to be kept busy with them.
RENEWAL_RETRY_SECONDS = 300.0

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


class Dialler:
    """Keeps one link open until cancelled; two while a certificate is renewed."""

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
        renewal: Renewal | None = None,
        start_id: bytes = b"",
    ) -> None:
        """`addresses` are `tcp://host:port`, best first. `lost` hears of every link's end, `changed` of every change
        of `status`. `clock` tells unix ms, `monotonic` seconds; `fraction` is random in [0, 1). Without `renewal` the
        certificate is used until it expires. `start_id`: random, of this start of the agent."""
        self.status = LinkStatus()
        self.session: Session | None = None
        self._identity = identity
        self._addresses = addresses
        self._hello = link_pb2.Hello(
            protocol=ProtocolVersion(major=PROTOCOL[0], minor=PROTOCOL[1]),
            incarnation=incarnation,
            agent_version=agent_version,
            start_id=start_id,
        )
        self._port = port
        self._report = report
        self._lost = lost
        self._changed = changed
        self._clock = clock
        self._monotonic = monotonic
        self._fraction = fraction
        self._pause = pause
        self._renewal = renewal
        self._welcomed_at: float | None = None
        self._renewed_at: float | None = None
        #: The open lines, the newest last; all but the last are being left.
        self._lines: list[Line] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def report_soon(self) -> None:
        """Send a report in this tick instead of the next interval."""
        if self._lines:
            self._lines[-1].report_soon()

    async def run(self) -> None:
        """Dial for ever."""
        failures = position = 0
        try:
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
        finally:
            for task in self._leaving:
                task.cancel()
            await asyncio.gather(*self._leaving, return_exceptions=True)

    def _lived_seconds(self) -> float:
        """How long the last link was up; 0 where there was no welcome."""
        return 0.0 if self._welcomed_at is None else self._monotonic() - self._welcomed_at

    async def _one_link(self, address: str) -> float | None:
        """One link from dialling to its end; seconds to wait where the coordinator named them."""
        try:
            self._identity.check_dates(self._clock())
            await self._hold(address)
        except LinkRefused as refused:
            if refused.refusal.code == REFUSAL_CODE_CERTIFICATE_EXPIRED and self._renewal is not None:
                return await self._renew_late(self._renewal, address, str(refused))
            return self._refused(address, refused)
        except IdentityError as error:
            if isinstance(error, CertificateExpired) and self._renewal is not None:
                return await self._renew_late(self._renewal, address, error.message)
            return self._not_usable(str(error))
        except (LinkDropped, CoordinatorBrokeContract, ConnectionError, TimeoutError, grpc.RpcError) as error:
            self._set(LinkState.CONNECTING, _words(error))
            log.warning("link lost", address=address, why=_words(error))
        return None

    def _refused(self, address: str, refused: LinkRefused) -> float | None:
        refusal = refused.refusal
        if refusal.code == REFUSAL_CODE_NODE_SILENT:
            # The machine slept, or the line was dead: a lost link as any other, and nothing to be mended.
            self._set(LinkState.CONNECTING, str(refused))
            log.warning("link lost", address=address, why=refusal.message, remedy=refusal.remedy)
            return None
        self._set(LinkState.REFUSED, str(refused))
        log.error("the coordinator refused the link", address=address, why=refusal.message, remedy=refusal.remedy)
        if refusal.permanent:
            return PERMANENT_REFUSAL_SECONDS * (0.5 + self._fraction())
        # Not before the moment that was named, and not all nodes at once.
        return max(REFUSAL_SECONDS_MIN, refusal.retry_after_ms / 1000) * (1.0 + self._fraction())

    def _not_usable(self, why: str) -> float:
        self._set(LinkState.REFUSED, why)
        log.error("the node's identity cannot be used", why=why)
        return PERMANENT_REFUSAL_SECONDS * (0.5 + self._fraction())

    def _set(self, state: LinkState, reason: str) -> None:
        if state is LinkState.CONNECTED or self.session is None:  # else an older link serves on meanwhile
            self.status.state, self.status.reason = state, reason
            self._changed()

    # --- links -----------------------------------------------------------------------------------------

    async def _hold(self, address: str) -> None:
        """Hold one link; returns where its certificate was renewed, and leaves it running then."""
        hello = link_pb2.Hello(renews=bool(self._lines))
        hello.MergeFrom(self._hello)
        line = Line(
            self._identity,
            address,
            hello,
            self._port,
            self._report,
            self._opened,
            self._closed,
            self._monotonic,
            self._renewal.pause if self._renewal is not None else asyncio.sleep,
        )
        running = asyncio.create_task(line.run(), name="link")
        renewing = asyncio.create_task(self._renew_in_time(line), name="link-renewal")
        try:
            await asyncio.wait((running, renewing), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                renewing.result()
                self._leaving.add(running)
                running.add_done_callback(self._has_left)
                return
            running.result()
        finally:
            unneeded = [renewing] if running in self._leaving else [renewing, running]
            for task in unneeded:
                task.cancel()
            await asyncio.gather(*unneeded, return_exceptions=True)

    def _opened(self, line: Line, node_id: str) -> None:
        for older in self._lines:
            older.leave()
        self._lines.append(line)
        self.session = line.session
        self.status.links += 1
        self._welcomed_at = self._monotonic()
        self._set(LinkState.CONNECTED, "")
        log.info("linked", node=node_id)

    def _closed(self, line: Line) -> None:
        assert line.session is not None, "it was opened"
        self._lines.remove(line)
        if self.session is line.session:
            self.session = None
        line.session.questions.end()
        self._lost(line.session)

    def _has_left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the link of the last certificate was lost", why=_words(error))
            self._set(LinkState.CONNECTING, _words(error))

    # --- certificates ------------------------------------------------------------------------------------

    async def _renew_in_time(self, line: Line) -> None:
        """Return when there is a new certificate; until then, or for ever, wait for its time."""
        await line.welcomed.wait()
        if self._renewal is None or not line.renews:
            await asyncio.Event().wait()
        assert self._renewal is not None, "without it nobody comes here"
        due = renewal_due_ms(self._identity, self._fraction())
        while True:
            while (left := max((due - self._clock()) / 1000, self._rest_seconds())) > 0:
                await self._renewal.pause(min(left, RENEWAL_LOOK_SECONDS))
            try:
                if await self._renewed_over(line, self._renewal):
                    return
            except (TimeoutError, IdentityError, OSError) as error:
                log.error("the certificate was not renewed; trying again", why=str(error) or "no answer came")
            await self._renewal.pause(RENEWAL_RETRY_SECONDS * (0.5 + self._fraction()))

    def _rest_seconds(self) -> float:
        """Until another renewal may follow the last one."""
        return 0.0 if self._renewed_at is None else self._renewed_at + RENEWAL_SECONDS_MIN - self._monotonic()

    async def _renewed_over(self, line: Line, renewal: Renewal) -> bool:
        """Ask once. Raises TimeoutError, IdentityError, and OSError where the disk does not take it."""
        answer = await line.renew(signing_request(self._identity))
        if answer.HasField("refusal"):
            log.error("no new certificate", why=answer.refusal.message, remedy=answer.refusal.remedy)
            return False
        renewed = self._identity.renewed(answer.certificate_pem.encode(), answer.ca_pem.encode())
        await renewal.save(renewed)
        self._identity, self._renewed_at = renewed, self._monotonic()
        log.info("certificate renewed", until=f"{renewed.not_after:%Y-%m-%d %H:%M} UTC")
        return True

    async def _renew_late(self, renewal: Renewal, address: str, why: str) -> float | None:
        """The certificate has expired: a new one by proof of the key; seconds to wait where that is of no use."""
        log.info("renewing the certificate late", why=why)
        try:
            late = await renewal.late(self._identity, address)
            await renewal.save(late.identity)
            self._identity = late.identity
            late.check_clock(self._clock())
        except RenewalUnreachable as error:
            self._set(LinkState.CONNECTING, f"{why} {error}")
            log.warning("the certificate could not be renewed", why=str(error))
            return None
        except (IdentityError, OSError) as error:
            return self._not_usable(f"{why} {error}")
        return None


def _words(error: BaseException) -> str:
    """An error for people: gRPC's own text is a page long."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error) or type(error).__name__
