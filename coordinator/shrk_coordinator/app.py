"""The composition root: the only place where concrete things meet, and where they start and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import structlog
from aiohttp import web

from shrk_contract.notify import Overseer
from shrk_contract.service import configure_logs, run_until_signalled, running
from shrk_contract.state_dir import StateDirLock
from shrk_coordinator.accounts.keys import KeyRing
from shrk_coordinator.control_plane.authority import Authority
from shrk_coordinator.control_plane.door import Door
from shrk_coordinator.control_plane.enrolment import EnrolmentServicer, LinkAddresses, serve_enrolment
from shrk_coordinator.control_plane.link_server import LinkServer, serve_links
from shrk_coordinator.control_plane.links import Links
from shrk_coordinator.control_plane.ports import PortBusy
from shrk_coordinator.control_plane.questions import Questions
from shrk_coordinator.control_plane.renewal import Renewals
from shrk_coordinator.data_plane.http import CallersHttp
from shrk_coordinator.data_plane.install import Installation, Release
from shrk_coordinator.data_plane.probe import Prober
from shrk_coordinator.data_plane.relay import Shared
from shrk_coordinator.data_plane.tls import CallersTls
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.records import ApiKey, pseudonym
from shrk_coordinator.settings import CoordinatorSettings
from shrk_coordinator.state import census
from shrk_coordinator.store.store import Store

#: After the drain, connections get this long to close by themselves.
CLOSE_SECONDS = 2.0
#: What it takes to end after a drain, as the unit allows for.
ENDING_SECONDS = 30.0

#: A request makes a few hundred objects that die with it, and none of them in cycles: the default of 700 would
#: look for cycles at every other request.
GC_THRESHOLDS = (10_000, 20, 50)
#: Open files asked of the system, as far as it allows: each link is one, and so is each caller. Most begin with 1,024.
FILES_MAX = 65_536

log = structlog.get_logger("shrk.coordinator")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens, once it does."""

    listen: int
    link: int
    enrolment: int


def unix_ms() -> int:
    """Wall-clock time, for certificates, keys and records. Durations use the driver's monotonic clock."""
    return time.time_ns() // 1_000_000


class Coordinator:
    """One coordinator, from `start` to `stop`."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self.driver = Driver(self.metrics, unix_ms(), random.Random(), Overseer.of_this_process().turned)
        self.links = Links(os.urandom(16), [settings.public_link_address] if settings.public_link_address else [])
        self.driver.connect(self.links)
        self._stack = contextlib.AsyncExitStack()
        self.ports: Ports | None = None
        self._http: CallersHttp | None = None
        self._link_server: LinkServer | None = None

    async def start(self) -> None:
        """Open everything; what was opened is closed again when a later step fails."""
        try:
            self.ports = await self._start()
            log.info("ready", **self._where())
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> Ports:
        settings, stack = self._settings, self._stack
        lock = StateDirLock.acquire(settings.state_dir, "coordinator")
        stack.callback(lock.release)
        authority = Authority.open(settings.state_dir, unix_ms)
        store = await Store.open(settings.database_url)
        stack.push_async_callback(store.close)
        await stack.enter_async_context(running(self.driver.run(), "driver"))
        renewals = Renewals(authority, store.admission, unix_ms, os.urandom)
        link_port = await self._open_links(authority, store, renewals)
        enrolment_port = await self._open_enrolment(authority, store, link_port, renewals)
        listen_port = await self._open_http(store, self._installation(authority, link_port))
        ports = Ports(listen_port, link_port, enrolment_port)
        run_file = settings.state_dir / "run" / "coordinator.json"
        _write_run_file(run_file, ports)
        stack.callback(run_file.unlink, missing_ok=True)
        return ports

    async def _open_links(self, authority: Authority, store: Store, renewals: Renewals) -> int:
        door = Door(store.admission, store.revoked_after, unix_ms)
        questions = self._questions()
        self._stack.push_async_callback(questions.stop)
        servicer = self._link_server = LinkServer(
            self.links, door.admit, self.driver.post, self.driver.now, renewals.on_link, questions.asked
        )
        server, port = await serve_links(servicer, authority.link_credentials(), self._settings.link_listen)
        self._stack.push_async_callback(_stop_grpc, server)
        await self._stack.enter_async_context(running(door.watch(self.links), "revocations"))
        return port

    def _questions(self) -> Questions:
        """What nodes ask about themselves, and who answers."""
        driver, roster = self.driver, self.driver.state.roster
        prober = Prober(driver, Shared(self.links, driver), roster, os.urandom, unix_ms)
        return Questions(roster, prober, driver.now, unix_ms, driver.later)

    async def _open_enrolment(self, authority: Authority, store: Store, link_port: int, renewals: Renewals) -> int:
        addresses = LinkAddresses(port=link_port, public=self._settings.public_link_address)
        servicer = EnrolmentServicer(
            authority,
            store.redeem_join_token,
            addresses,
            clock=unix_ms,
            random_bytes=os.urandom,
            renewals=renewals,
        )
        server, port = await serve_enrolment(
            servicer, authority.enrolment_credentials(), self._settings.enrolment_listen
        )
        self._stack.push_async_callback(_stop_grpc, server)
        return port

    def _installation(self, authority: Authority, link_port: int) -> Installation:
        settings = self._settings
        return Installation(
            Release(settings.dist_dir) if settings.dist_dir else None,
            link_port,
            authority.ca_digest(),
            settings.public_url,
            settings.public_link_address,
            secure=bool(settings.tls_cert or settings.behind_proxy),
        )

    async def _open_http(self, store: Store, installation: Installation) -> int:
        settings, keys = self._settings, KeyRing(store.key)

        async def authenticate(presented: str) -> ApiKey | None:
            return await keys.authenticate(presented, unix_ms())

        self._add_gauges()
        http = self._http = CallersHttp(
            self.driver,
            self.links,
            self.driver.state,
            authenticate,
            pseudonym,
            self.metrics,
            proxies=settings.behind_proxy,
            buffers=settings.structured_output == "buffer",
            routes=installation.routes(),
        )
        # handler_cancellation: a caller that leaves is noticed at once, not at the next write.
        runner = web.AppRunner(
            http.app(), handler_cancellation=True, access_log=None, lingering_time=2.0, shutdown_timeout=CLOSE_SECONDS
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        tls = await self._tls()
        site = web.TCPSite(runner, settings.listen.host, settings.listen.port, ssl_context=tls, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise PortBusy(f"callers cannot be heard on {settings.listen}", str(error.strerror), "--listen") from error
        address = runner.addresses[0]
        return int(address[1])

    async def _tls(self) -> ssl.SSLContext | None:
        """The callers' certificate; None for plain HTTP."""
        certificate, key = self._settings.tls_cert, self._settings.tls_key
        if certificate is None or key is None:
            return None
        tls = CallersTls(certificate, key)
        await self._stack.enter_async_context(running(tls.follow(), "tls"))
        return tls.context

    def _add_gauges(self) -> None:
        state, links, gauge = self.driver.state, self.links, self.metrics.gauge
        gauge("shrk_requests_open", "Requests under way.", lambda: self.driver.open_requests)
        gauge("shrk_attempts_open", "Attempts under way on nodes.", lambda: len(state.attempts.by_stream))
        gauge("shrk_links_open", "Nodes linked now.", lambda: len(links.all()))
        gauge("shrk_nodes_known", "Nodes linked since the start.", lambda: len(state.roster.nodes))
        gauge("shrk_link_frames_received", "Frames received from nodes.", lambda: links.received()[0])
        gauge("shrk_link_messages_received", "gRPC messages received from nodes.", lambda: links.received()[1])
        self._add_labelled_gauges()

    def _add_labelled_gauges(self) -> None:
        state, gauges = self.driver.state, self.metrics.gauges
        roster, waiting = state.roster, state.attempts.waiting
        gauges("shrk_nodes", "Nodes by state.", "state", lambda: census.nodes_by_state(roster))
        gauges(
            "shrk_effective_replicas",
            "Failure domains that a model can be asked of now; fewer than are wanted, it is degraded, and of 0, none.",
            "model",
            lambda: census.effective_by_model(roster, self.driver.state.assigning.redundancy, self.driver.now()),
        )
        gauges(
            "shrk_models",
            "Models by how they stand: ok, degraded, none (nobody can answer now), idle (loaded again when asked for).",
            "redundancy",
            lambda: census.models_by_redundancy(roster, state.assigning.redundancy, self.driver.now()),
        )
        gauges("shrk_offers", "Nodes that serve a model.", "model", lambda: census.offers_by_model(roster))
        gauges(
            "shrk_breakers_open",
            "Nodes that are left alone or only tried with a model, since requests failed there.",
            "model",
            lambda: census.breakers_open_by_model(roster),
        )
        gauges(
            "shrk_waiting",
            "Requests that wait for a node, by model.",
            "model",
            lambda: census.waiting_by_model(roster, waiting),
        )

    def _where(self) -> dict[str, object]:
        """Where it listens, for the operator who starts it."""
        assert self.ports is not None
        scheme = "https" if self._settings.tls_cert else "http"
        host = self._settings.listen.host
        return {
            "callers": f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.ports.listen}/v1",
            "nodes": f"ports {self.ports.link} and {self.ports.enrolment}",
            "state_dir": str(self._settings.state_dir),
        }

    async def drain(self) -> None:
        """Take nothing new, and let requests under way end, for at most `drain_seconds`.

        Links are admitted all the while: an answer that loses its node now goes on elsewhere as ever.
        """
        assert self._http is not None
        Overseer.of_this_process().lasting(self._settings.drain_seconds + ENDING_SECONDS)
        self._http.stopping = True
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self.driver.idle()
        except TimeoutError:
            log.warning("drain ended with requests under way", requests=self.driver.open_requests)

    async def stop(self) -> None:
        """Tell the callers that are left, close links with a word, then all else in reverse order of opening."""
        self.driver.stop_requests()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.driver.idle()
        if self._link_server is not None:
            self._link_server.refuse_new()
        self.links.close_all()
        await self._stack.aclose()


async def serve(settings: CoordinatorSettings) -> None:
    """Run until SIGINT or SIGTERM, then drain; a second signal ends the drain."""
    configure_logs(settings.log_format)
    # What was imported stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    raise_open_files()
    await run_until_signalled(Coordinator(settings))


def raise_open_files() -> None:
    """Let this process open FILES_MAX files, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _stop_grpc(server: grpc.aio.Server) -> None:
    await server.stop(grace=0.5)


def _write_run_file(path: Path, ports: Ports) -> None:
    """Tell this machine where the coordinator listens; whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "schema": 1,
        "pid": os.getpid(),
        "listen_port": ports.listen,
        "link_port": ports.link,
        "enrolment_port": ports.enrolment,
    }
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content))
    draft.replace(path)
