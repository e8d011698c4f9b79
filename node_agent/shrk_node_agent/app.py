"""The composition root: the only place where concrete things meet, and where they start and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from shrk_contract.notify import Overseer
from shrk_contract.service import configure_logs, run_until_signalled, running
from shrk_contract.settings import SettingsError
from shrk_contract.state_dir import StateDirLock
from shrk_contract.terms import Host, Rejection, Report, Status, Terms
from shrk_node_agent import owner_calls, status
from shrk_node_agent.attempts import AttemptSink
from shrk_node_agent.control import ControlSocket
from shrk_node_agent.driver import Driver
from shrk_node_agent.engine import fetched, process
from shrk_node_agent.engine.engine import StartEngine
from shrk_node_agent.engine.sweep import sweep
from shrk_node_agent.engines import downloads, launcher
from shrk_node_agent.errors import AgentCannotRun
from shrk_node_agent.hangup import answering_hangup
from shrk_node_agent.link import identity as identities
from shrk_node_agent.link.dial import Dialler, LinkStatus
from shrk_node_agent.link.enrol import EnrolmentFailed, enrol
from shrk_node_agent.link.identity import Identity, IdentityError
from shrk_node_agent.link.join_token import ControllerInvalid, JoinTokenInvalid
from shrk_node_agent.link.joining import known_identity
from shrk_node_agent.link.questions import Questions
from shrk_node_agent.link.renewal import Renewal, renew_late
from shrk_node_agent.link.session import Session, SessionPort
from shrk_node_agent.owner import contained, device_of, gpus_of, needs_of, wanted_of
from shrk_node_agent.pauses import PauseFile, PauseUnreadable
from shrk_node_agent.reload import Changes, LastReload, compare, merged
from shrk_node_agent.sensors.gpu import SensorsFailed, VisibleDevicesWrong
from shrk_node_agent.settings import AgentSettings, EngineKind
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from shrk_node_agent.state.terms.terms import Terms as OwnerTerms
from shrk_node_agent.verdicts import Verdicts

#: How long a stopping agent waits at least: a coordinator that is given no time moves what runs here at once, and
#: then says which attempts it has moved.
HANDOVER_SECONDS_MIN = 2.0
#: What it takes to end engines after a drain, as the unit and the installer's service allow for.
ENDING_SECONDS = 40.0
#: Two starts of agents never share an id of so many random bytes.
START_ID_BYTES = 16
#: What is said at the end is small, and leaves in milliseconds over a link that works.
LAST_WORDS_SECONDS_MAX = 1.0

log = structlog.get_logger("shrk.agent")


def unix_ms() -> int:
    """Wall-clock time, for certificates and reports. Durations use the driver's monotonic clock."""
    return time.time_ns() // 1_000_000


def _utc() -> datetime:
    """The same, for an owner's pause: theirs goes on while the machine sleeps."""
    return datetime.fromtimestamp(unix_ms() / 1000, UTC)


class Agent:
    """One node agent, from `start` to `stop`."""

    def __init__(self, settings: AgentSettings, read: Callable[[], AgentSettings] | None = None) -> None:
        """`read`: the settings anew; None: they stay as they are."""
        self._settings = settings
        self._read = read or (lambda: self._settings)
        self._stack = contextlib.AsyncExitStack()
        self._dialler: Dialler | None = None
        self._identity: Identity | None = None
        self._report_sequence = 0
        self._last_reload = LastReload()
        self._began = time.monotonic()
        self._drains = True
        self._stop_asked = False
        self._version = version("shrk-node-agent")
        folders = process.EngineFolders(
            run=settings.state_dir / "run", logs=settings.state_dir / "logs", sockets=settings.state_dir / "engines"
        )
        self._run_dir = folders.run
        self._pause_file = PauseFile(settings.state_dir / "pause.json")
        start: StartEngine = partial(process.start, launcher=launcher(settings), folders=folders)
        self._downloads = None if settings.engine is EngineKind.SIM else downloads(settings)
        if self._downloads is not None:
            start = partial(fetched.start, downloads=self._downloads, start_engine=start)
        turned = Overseer.of_this_process().turned
        self._gpus = gpus_of(settings, time.monotonic, self._load, sets=True)
        state = NodeState(
            needs_of(settings, self._downloads), settings.memory_bytes, OwnerTerms(wanted_of(settings, self._gpus))
        )
        self.driver = Driver(settings.specs(), start, self._changed, self._answer_assignment, turned, state)
        verdicts = Verdicts(self._questions, self._link_status)
        self._control = ControlSocket(
            settings.state_dir / "control.sock", self._status, [*verdicts.routes(), *owner_calls.routes(self)]
        )

    async def start(self) -> None:
        """Open everything; what was opened is closed again when a later step fails."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        state_dir = self._settings.state_dir
        # Before the sweep: it would take a running agent's engines for leftovers.
        lock = StateDirLock.acquire(state_dir, "node agent")
        self._stack.callback(lock.release)
        await asyncio.to_thread(self._sweep)
        # A machine that can be no node loads nothing.
        self._identity = await self._known_identity()
        await self._control.open()
        self._stack.push_async_callback(self._control.close)
        # Engines before the network: they take longest, and need no coordinator to load.
        self._stack.push_async_callback(self._gpus.close)  # after the engines: what limits a card holds while they end
        self._stack.push_async_callback(self.driver.stop)
        self._go_on_pausing()
        await self._read_gpus()
        await self._stack.enter_async_context(running(self.driver.watch(self._gpus, contained=contained()), "sensors"))
        await self._stack.enter_async_context(running(self.driver.run(), "driver"))
        if self._identity is None:
            self._identity = await self._enrolled()
        incarnation = await asyncio.to_thread(identities.next_incarnation, self._identity_dir)
        self._dialler = Dialler(
            identity=self._identity,
            addresses=_addresses(self._settings.controller, self._identity),
            incarnation=incarnation,
            agent_version=self._version,
            port=SessionPort(
                ordered=self.driver.ordered,
                unknown=_refuse_unknown,
                cancelled=self.driver.cancelled,
                assigned=self.driver.assign,
            ),
            report=self._report,
            lost=self._lost,
            changed=self.driver.link_changed,
            clock=unix_ms,
            monotonic=self.driver.now,
            fraction=random.SystemRandom().random,
            renewal=Renewal(save=self._save_identity, late=renew_late),
            start_id=os.urandom(START_ID_BYTES),
        )
        await self._stack.enter_async_context(running(self._dialler.run(), "dialler"))

    def _go_on_pausing(self) -> None:
        """A pause holds until its owner's time is over, whatever became of the agent meanwhile."""
        try:
            left = self._pause_file.left(_utc())
        except PauseUnreadable as unreadable:
            log.error("a pause was kept that cannot be read", why=str(unreadable))
            left = None
        if left is None or left > 0:
            self.driver.post(seen.PauseAsked(self.driver.now(), left, at_once=True))

    async def _read_gpus(self) -> None:
        """Once, before anything starts: GPUs that the owner names and that are not there are for them to mend. Raises
        VisibleDevicesWrong."""
        try:
            await self._gpus.read()
        except VisibleDevicesWrong:
            raise
        except SensorsFailed as failed:
            log.error("no GPU can be read: nothing is served until one can", why=str(failed))

    @property
    def _identity_dir(self) -> Path:
        return self._settings.state_dir / "identity"

    def _sweep(self) -> None:
        for swept in sweep(self._run_dir):
            log.warning(
                "an earlier engine was left over",
                engine=swept.engine_id,
                killed=len(swept.killed),
                problem=swept.problem,
            )

    async def _known_identity(self) -> Identity | None:
        """The identity on disk; None where a join token is to bring one. Raises AgentCannotRun."""
        settings = self._settings
        token = settings.join_token.get_secret_value() if settings.join_token is not None else None
        addresses = (settings.controller,) if settings.controller else ()
        try:
            identity = await known_identity(self._identity_dir, token, addresses, unix_ms(), renew_late)
        except IdentityError as error:
            raise AgentCannotRun(str(error)) from error
        if identity is not None:
            return identity
        if settings.controller is None or settings.join_token is None:
            raise AgentCannotRun(
                "This machine is not a node yet. Get a join token from the coordinator's operator "
                "(shrk coordinator tokens create --owner YOU), then start it with "
                "SHRK_CONTROLLER=tcp://HOST:9100 SHRK_JOIN_TOKEN=TOKEN shrk node run"
            )
        return None

    async def _enrolled(self) -> Identity:
        """A new identity for the join token. Raises AgentCannotRun."""
        settings = self._settings
        assert settings.controller is not None, "it was looked for"
        assert settings.join_token is not None, "it was looked for"
        token = settings.join_token.get_secret_value()
        try:
            identity = await enrol(settings.controller, token, self._identity_dir, settings.name, self._version)
        except (IdentityError, EnrolmentFailed, JoinTokenInvalid, ControllerInvalid) as error:
            raise AgentCannotRun(str(error)) from error
        log.info("enrolled", node=identity.node_id)
        return identity

    async def _save_identity(self, identity: Identity) -> None:
        await asyncio.to_thread(identities.save, self._identity_dir, identity)

    # --- new settings ---------------------------------------------------------------------------------

    async def reload(self, read: Callable[[], AgentSettings]) -> Changes:
        """Read the settings again and take in what an agent that runs can; settings with an error change nothing."""
        changes = Changes()
        try:
            new = await asyncio.to_thread(read)
        except SettingsError as error:
            log.error("the settings are not taken in; those before hold", problems=list(error.problems))
            self._last_reload.problems = error.problems
        else:
            changes = compare(self._settings, new)
            self._last_reload = LastReload(needs_restart=changes.needs_restart)
            log.info("settings read again", applied=changes.applied, needs_restart=changes.needs_restart)
            if changes.applied:
                settings = merged(self._settings, new)
                self.apply(settings, await asyncio.to_thread(needs_of, settings, self._downloads))
        self.driver.link_changed()  # the status is another one
        return changes

    def apply(self, settings: AgentSettings, needs: tuple[Need, ...]) -> None:
        """From now on these hold. Only what `reload.RELOADED` names differs from those before."""
        self._settings = settings
        self.driver.post(seen.ModelsChanged(self.driver.now(), needs, settings.memory_bytes))
        self.driver.post(seen.TermsChanged(self.driver.now(), wanted_of(settings, self._gpus)))

    # --- what is told --------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._control.changed()
        if self._dialler is not None:
            self._dialler.report_soon()

    def _load(self) -> float:
        """Of all slots that answer, 0 to 1."""
        engines = self.driver.state.engines.values()
        return min(1.0, sum(e.in_flight for e in engines) / max(1, sum(e.slots for e in engines)))

    def _status(self) -> dict[str, object]:
        node_id = self._identity.node_id if self._identity else ""
        told = status.document(self.driver, node_id, self._settings.name, self._link_status())
        reload = self._last_reload.document()
        return told | {
            "version": self._version,
            "uptime_seconds": round(self.driver.now() - self._began, 1),
            "coordinator": self._settings.controller or (self._identity.link_addresses[0] if self._identity else ""),
            "schedule": status.schedule(self.driver, self._settings.schedule, self._settings.time_zone),
            "settings": reload,
            "settings_error": "\n".join(self._last_reload.problems),
        }

    def _link_status(self) -> LinkStatus | None:
        return self._dialler.status if self._dialler else None

    def _questions(self) -> Questions | None:
        session = self._dialler.session if self._dialler else None
        return session.questions if session else None

    def _report(self) -> Report:
        self._report_sequence += 1
        state, reason = self.driver.state.status()
        return Report(
            host=Host(
                name=self._settings.name,
                operating_system=platform.system(),
                architecture=platform.machine(),
                cpu_count=os.cpu_count() or 0,
                memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            ),
            status=Status(state, reason[:2_000], self.driver.state.next_action()[:2_000]),
            engines=self.driver.state.reports(self.driver.now(), unix_ms()),
            devices=tuple(map(device_of, self.driver.state.terms.readings)),
            terms=Terms(
                temperature_celsius_max=self._settings.temp_max if self.driver.state.terms.readings else 0.0,
                schedule=self._settings.schedule,
                time_zone=self._settings.time_zone,
                closes_in_seconds=self.driver.state.closes_in(self.driver.now()),
                kept_back=self.driver.state.kept_back[:2_000],
                models=self._settings.served,
                memory_bytes=self.driver.state.assignment.bound_bytes,
                scales_to_zero=self._settings.scale_to_zero,
            ),
            agent_version=self._version,
            sequence=self._report_sequence,
        )

    def _answer_assignment(self, told: do.TellAssigned) -> None:
        if self._dialler is not None and self._dialler.session is not None:
            self._dialler.session.assign_result(told.leader_term, told.revision, told.outcomes)

    def _lost(self, session: Session) -> None:
        """A link ended: nobody waits for its attempts any more."""
        for key in session.open_attempts():
            self.driver.cancelled(key)

    # --- the end -------------------------------------------------------------------------------------

    def pause(self, seconds: float | None) -> None:
        """Take nothing new for so long, and let the owner have the machine; None: until `resume`. Raises OSError."""
        self._pause_file.keep(seconds, _utc())
        self.driver.post(seen.PauseAsked(self.driver.now(), seconds))

    def resume(self) -> None:
        """End a pause, and try again what was left alone. Raises OSError."""
        self._pause_file.forget()
        self.driver.post(seen.ResumeAsked(self.driver.now()))
        self.driver.post(seen.RetryAsked(self.driver.now()))

    async def reload_now(self) -> Changes:
        """Read the settings again. Raises SettingsError."""
        changes = await self.reload(self._read)
        if self._last_reload.problems:
            raise SettingsError("the node agent", self._last_reload.problems)
        return changes

    def stop_soon(self, now: bool) -> None:
        """End the agent, as its owner asked; `now`: without a drain. While it drains already, the drain ends."""
        # A second signal ends the drain.
        if now or not (self._stop_asked or self.driver.state.draining):
            self._stop_asked, self._drains = True, not now
            os.kill(os.getpid(), signal.SIGTERM)

    async def drain(self) -> None:
        """Take nothing new, and let attempts under way end, here or elsewhere: the coordinator is told that
        `drain_seconds` are left, and has HANDOVER_SECONDS_MIN in any case. Returns as soon as none is left."""
        seconds = self._settings.drain_seconds
        self.driver.drain()
        if not self._drains:
            return
        Overseer.of_this_process().lasting(seconds + ENDING_SECONDS)
        session = self._dialler.session if self._dialler is not None else None
        if session is not None:
            session.drain("the agent is stopping", seconds)
        try:
            async with asyncio.timeout(max(seconds, HANDOVER_SECONDS_MIN)):
                await self.driver.drained()
        except TimeoutError:
            log.warning("drain ended with attempts under way", attempts=len(self.driver.state.attempts))
        if session is not None:
            # The last attempts' last words, unless their link is gone.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS_MAX):
                    await session.outbox.flushed()

    async def stop(self) -> None:
        """End everything, in the reverse order of its opening."""
        await self._stack.aclose()


def _addresses(controller: str | None, identity: Identity) -> tuple[str, ...]:
    """Where to dial: what the owner says and nothing else; without a word of theirs, what was true at the enrolment.

    A wrong address cannot deceive: whoever answers there must hold a certificate of the CA pinned at enrolment.
    """
    return (controller,) if controller else identity.link_addresses


def _refuse_unknown(sink: AttemptSink) -> None:
    sink.reject(Rejection.UNSUPPORTED, "this agent does not know the endpoint; update it")


async def run(settings: AgentSettings, read: Callable[[], AgentSettings]) -> None:
    """Run until SIGINT or SIGTERM, then drain; a second signal ends the drain. At SIGHUP settings are `read` again."""
    configure_logs(settings.log_format)
    agent = Agent(settings, read)
    async with answering_hangup(partial(agent.reload, read)):
        await run_until_signalled(agent)
