"""One life of one engine: started under a warden, asked for its first token, watched to its end."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from shrk_node_agent.engine.crash import crash_of, signal_name
from shrk_node_agent.engine.engine import (
    EngineEvent,
    EngineExited,
    EngineLoading,
    EngineProcess,
    EngineReady,
    EngineSpec,
)
from shrk_node_agent.engine.launch import Launcher, is_path
from shrk_node_agent.engine.output import EngineOutput, Progress
from shrk_node_agent.engine.pin import complete_pin
from shrk_node_agent.engine.readiness import Abilities, EngineProbe, NotYet, Unfit
from shrk_node_agent.engine.session import End, WardedSession
from shrk_node_agent.engine.sweep import SessionRecord, kill_session, record_path
from shrk_node_agent.engine.warden import GRACE_SECONDS, WIPE_SECONDS_MAX, remove

#: The kernel's limit for the path of a unix socket.
SOCKET_PATH_BYTES_MAX = 107
#: "/shrk-" and 8 characters name an engine's folder; vLLM's own sockets in it have names of "/" and 36.
SOCKETS_FOLDER_BYTES_MAX = SOCKET_PATH_BYTES_MAX - 14 - 37
#: Reads of the engine's output; a burst at start-up is some 20 KB.
READ_BYTES = 64 * 1024
#: After a warden's death somebody may still hold the output open; no line of theirs matters much.
LAST_OUTPUT_SECONDS_MAX = 2.0
#: Beyond grace and wiping, a warden that has not ended by then hangs.
STOP_SLACK_SECONDS = 5.0

#: For the owner, who can do nothing about it but tell us.
OWN_ERROR = "An error in the agent itself, which its log shows"

log = structlog.get_logger("shrk.engine")


@dataclass(frozen=True, slots=True)
class EngineFolders:
    """Where engines leave files."""

    #: Records of running engines; `sweep` reads them at the agent's start.
    run: Path
    #: `<engine id>.log`, and one older beside it.
    logs: Path
    #: Sockets and temporary files, one folder for each life of an engine. At most 56 bytes long.
    sockets: Path


@dataclass(frozen=True, slots=True)
class StartLimits:
    """How long coming up may take."""

    #: Without a word in the log: shards of a large model take 10 minutes from a slow disk, and it says so after each.
    silence_seconds: float = 15 * 60.0
    #: In all: 140 GB over a 50 Mbit/s line take 6.2 hours.
    total_seconds: float = 12 * 3600.0
    #: Between two looks at /health.
    look_interval_seconds: float = 0.25
    #: Between two events while nothing changes, so that an owner sees that time is being counted.
    tell_interval_seconds: float = 5.0
    #: First tokens that fail for no fault of the question; each has its own deadline.
    first_token_attempts: int = 3


@dataclass(frozen=True, slots=True)
class _GaveUp:
    """The engine runs and will not become ready."""

    reason: str
    incompatible: bool


async def start(
    spec: EngineSpec,
    on_event: Callable[[EngineEvent], None],
    *,
    launcher: Launcher,
    folders: EngineFolders,
    limits: StartLimits | None = None,
) -> EngineProcess:
    """Start one engine under a warden; returns at once, and events follow on the running loop.

    `on_event` must not raise. EngineExited is its last event, exactly once, also where nothing could be started.
    """
    engine = SupervisedEngine(spec, on_event, launcher, folders, limits or StartLimits())
    engine.begin()
    return engine


class SupervisedEngine:
    """An `EngineProcess`."""

    def __init__(
        self,
        spec: EngineSpec,
        on_event: Callable[[EngineEvent], None],
        launcher: Launcher,
        folders: EngineFolders,
        limits: StartLimits,
    ) -> None:
        self._spec = spec
        self._on_event = on_event
        self._folders = folders
        self._limits = limits
        # A name of its own for each life: nothing stale can lie there.
        self._folder = folders.sockets / f"shrk-{secrets.token_hex(4)}"
        self._launch = launcher(spec, self.socket)
        self._output = EngineOutput(self._launch, folders.logs / f"{quote(spec.id, safe='')}.log")
        self._session: WardedSession | None = None
        self._gave_up: _GaveUp | None = None
        self._stop_asked: float | None = None
        self._ready = False
        self._crash = ""
        #: Its own process has ended; what it started may still be there.
        self._exit = asyncio.Event()
        self._progress = Progress("starting", None)
        self._heard_at = 0.0
        self._told_at = 0.0
        self._began_at = 0.0

    @property
    def socket(self) -> Path:
        return self._folder / "engine.sock"

    def pids(self) -> tuple[int, ...]:
        return () if self._session is None else self._session.pids()

    def begin(self) -> None:
        """Start living; on the running loop."""
        self._began_at = self._heard_at = asyncio.get_running_loop().time()
        self._life = asyncio.create_task(self._live(), name=f"engine {self._spec.id}")

    async def crash(self) -> str:
        await self._exit.wait()
        return self._crash

    async def stop(self, grace_seconds: float) -> None:
        asked = self._stop_asked
        self._stop_asked = grace_seconds if asked is None else min(asked, grace_seconds)
        if self._session is not None:
            self._session.ask_to_stop(grace_seconds)
        # Shielded: who waits here may be cancelled, the end of the engine may not.
        bound = grace_seconds + WIPE_SECONDS_MAX + STOP_SLACK_SECONDS
        try:
            await asyncio.wait_for(asyncio.shield(self._life), bound)
        except TimeoutError:
            if self._session is not None:
                self._session.kill_warden()
            await asyncio.shield(self._life)

    async def _live(self) -> None:
        try:
            exited = await self._until_gone()
        except Exception:
            # Whatever it was: an engine whose end is never told would count as alive for ever.
            log.exception("supervising an engine failed", engine=self._spec.id)
            if self._session is not None:
                await self._session.abandon()
            exited = EngineExited(None, self._output.tail, False, OWN_ERROR)
        self._exit.set()
        self._on_event(exited)

    async def _until_gone(self) -> EngineExited:
        if (refusal := self._refusal()) is not None:
            return EngineExited(None, (), True, refusal)
        try:
            session = await self._spawn()
        except OSError as error:
            return EngineExited(None, (), False, f"The engine could not be started: {error}")
        self._session = session
        if self._stop_asked is not None:
            session.ask_to_stop(self._stop_asked)
        self._advance(Progress("starting", None))
        rising = self._part(self._rise(session))
        pump = self._part(self._pump(session))
        try:
            return await self._watch(session, rising, pump)
        finally:
            for part in (rising, pump):
                part.cancel()
            session.close()
            await asyncio.gather(rising, pump, return_exceptions=True)
            self._output.close()

    def _part(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What goes on beside the watch. An error of ours in it must not leave an engine that nobody can use."""

        def ended(part: asyncio.Task[None]) -> None:
            if not part.cancelled() and (error := part.exception()) is not None:
                log.error("supervising an engine failed", engine=self._spec.id, exc_info=error)
                self._give_up(OWN_ERROR, incompatible=False)

        part = asyncio.create_task(work)
        part.add_done_callback(ended)
        return part

    def _refusal(self) -> str | None:
        length = len(bytes(self._folders.sockets))
        if length <= SOCKETS_FOLDER_BYTES_MAX:
            return None
        return (
            f"The folder for engine sockets, {self._folders.sockets}, has a path of {length} bytes. A unix socket's "
            f"path is short, which leaves {SOCKETS_FOLDER_BYTES_MAX}: choose a shorter folder"
        )

    async def _spawn(self) -> WardedSession:
        """Raises OSError, and then nothing of it is left."""
        self._folders.run.mkdir(parents=True, exist_ok=True)
        self._folders.sockets.mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700)  # Whoever can reach the socket can use the engine.
        try:
            return await WardedSession.spawn(
                self._launch.command,
                {**self._launch.env, "TMPDIR": str(self._folder)},
                remove=(self._folder, record_path(self._folders.run, self._spec.id)),
                cwd=self._folder,
            )
        except BaseException:
            remove(self._folder)
            raise

    async def _watch(
        self, session: WardedSession, rising: asyncio.Task[None], pump: asyncio.Task[None]
    ) -> EngineExited:
        """From the first line to the last; returns when nothing of the engine is left."""
        record: SessionRecord | None = None
        try:
            if (birth := await session.born()) is not None:
                record = SessionRecord(birth.session, birth.start, birth.boot_id, str(self._folder))
                record.write(record_path(self._folders.run, self._spec.id))
        except (TimeoutError, OSError) as error:
            # Without a record nothing could be swept after a crash: rather no engine at all.
            self._give_up(f"The engine's start could not be recorded: {error}", incompatible=False)
            session.kill_warden()
        end = await session.ended(self._process_ended)
        rising.cancel()
        problems = await asyncio.to_thread(self._clear, record if end is None else None)
        await asyncio.wait({pump}, timeout=LAST_OUTPUT_SECONDS_MAX)
        pump.cancel()
        self._output.close()
        return self._exited(end, problems)

    def _clear(self, unfinished: SessionRecord | None) -> list[str]:
        """What the warden has left undone: `unfinished` where it was killed, else a record written too late.

        What cannot be done is returned in words: the engine has ended all the same.
        """
        problems = []
        try:
            if unfinished is not None:
                kill_session(unfinished)
        except OSError as error:
            problems.append(f"its processes cannot be ended: {error.strerror}")
        for path in (self._folder, record_path(self._folders.run, self._spec.id)):
            try:
                remove(path)
            except OSError as error:
                problems.append(f"{path} cannot be removed: {error.strerror}")
        return problems

    async def _pump(self, session: WardedSession) -> None:
        while received := await session.output.read(READ_BYTES):
            self._heard_at = asyncio.get_running_loop().time()
            for step in self._output.feed(received):
                self._advance(step)

    async def _rise(self, session: WardedSession) -> None:
        """Look until the first token has come, or until there is no hope of it."""
        failures = 0
        async with EngineProbe(self.socket, self._spec.model, self._spec.task) as probe:
            while self._within_limits():
                if await probe.listening():
                    self._advance(Progress("asking for the first token", None))
                    try:
                        await self._become_ready(await probe.abilities())
                        return
                    except Unfit as error:
                        return self._give_up(f"The engine cannot serve this model: {error}", incompatible=True)
                    except NotYet as error:
                        failures += 1
                        if failures >= self._limits.first_token_attempts:
                            return self._give_up(f"The engine gives no first token: {error}", incompatible=False)
                if asyncio.get_running_loop().time() - self._told_at >= self._limits.tell_interval_seconds:
                    self._advance(self._progress)
                await asyncio.sleep(self._limits.look_interval_seconds)  # It tells nobody; asking is the only way.

    def _within_limits(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > self._limits.silence_seconds:
            self._give_up(
                f"The engine wrote nothing for {self._limits.silence_seconds:g} s while {self._progress.detail}",
                incompatible=False,
            )
            return False
        if now - self._began_at > self._limits.total_seconds:
            self._give_up(f"The engine was not ready after {self._limits.total_seconds:g} s", incompatible=False)
            return False
        return True

    async def _become_ready(self, abilities: Abilities) -> None:
        pin = replace(self._launch.pin, **self._output.pin_parts)
        if abilities.version:
            pin = replace(pin, engine_version=abilities.version)
        try:
            pin = await asyncio.to_thread(complete_pin, pin, self._launch.source, self._launch.env)
        except OSError as error:
            raise Unfit(f"its files cannot be read: {error}") from error
        self._ready = True
        self._output.forget_cause()
        context_tokens = abilities.context_tokens or self._spec.context_tokens or 0
        self._on_event(EngineReady(pin, abilities.endpoints, self._spec.slots, context_tokens))

    def _advance(self, step: Progress) -> None:
        if self._ready or self._gave_up is not None or self._stop_asked is not None:
            return
        self._progress = step
        self._told_at = asyncio.get_running_loop().time()
        self._on_event(EngineLoading(step.detail, step.fraction, self._told_at - self._began_at))

    def _give_up(self, reason: str, *, incompatible: bool) -> None:
        self._gave_up = self._gave_up or _GaveUp(reason, incompatible)
        if self._session is not None:
            self._session.ask_to_stop(GRACE_SECONDS)

    def _process_ended(self, returncode: int) -> None:
        if self._stop_asked is None and self._gave_up is None:
            self._crash = crash_of(returncode)
        self._exit.set()

    def _exited(self, end: End | None, problems: list[str]) -> EngineExited:
        # With its warden gone, the engine's death signal was SIGKILL.
        returncode = -signal.SIGKILL if end is None else end.returncode
        if self._stop_asked is not None:
            reason, incompatible = "Stopped", False
        elif self._gave_up is not None:
            reason, incompatible = self._gave_up.reason, self._gave_up.incompatible
        elif end is None:
            reason, incompatible = "The engine's warden was killed, and the engine with it", False
        else:
            reason, incompatible = explain(returncode, self._ready, self._output, self._launch.source)
        if end is not None and end.left:
            reason += f"; processes {list(end.left)} do not end, and a restart of the machine will help"
        return EngineExited(returncode, self._output.tail, incompatible, "; ".join([reason, *problems]))


def explain(returncode: int | None, ready: bool, output: EngineOutput, source: str | None) -> tuple[str, bool]:
    """Why an engine ended by itself, in one sentence, and whether another start would end the same way."""
    when = "" if ready else " before it was ready"
    if returncode is None or returncode < 0:
        name = signal_name(signal.SIGKILL if returncode is None else -returncode)
        hint = (
            "; if nobody did that, the machine ran out of memory (`journalctl -k` tells)" if name == "SIGKILL" else ""
        )
        return f"The engine was killed by {name}{when}{hint}", False
    last = output.cause or (output.tail[-1] if output.tail else "without a word")
    if not ready and source is not None and is_path(source) and not Path(source).exists():
        return f"There is nothing at {source}; the engine says: {last}", True
    return (
        f"The engine ended with status {returncode}{when}: {last}",
        not ready and returncode != 0 and not output.cause_passes,
    )
