"""Brings a model to this machine before its engine starts: a child process under a warden, as engines are.

What is already here, whole and at the pinned commit, needs neither a process nor a network, and waits for nobody. One
download runs at a time, of this process and of all others on the same folder (`turn.py`): two would compete for the
same line, and each would count the same free disk as its own.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shrk_node_agent.engine import fetch
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.fetch import gigabytes
from shrk_node_agent.engine.launch import engine_environment
from shrk_node_agent.engine.output import TAIL_LINE_CHARACTERS_MAX, TAIL_LINES
from shrk_node_agent.engine.revisions import DEFAULT_REVISION, LockUnreadable, Pinned, RevisionLock, snapshot_files
from shrk_node_agent.engine.session import End, WardedSession
from shrk_node_agent.engine.sweep import SessionRecord, kill_session, record_path
from shrk_node_agent.engine.turn import LOOK_SECONDS, Turn

#: Of the disk, never used for models: logs, compiled kernels and whatever else the owner does with it.
RESERVE_BYTES = 5_000_000_000
#: Without a new byte: a line that was away comes back within minutes, and the hub's library has given up by then.
SILENCE_SECONDS_MAX = 600.0
#: A download that is stopped has nothing to put in order; this is for a machine that swaps.
STOP_SECONDS = 2.0

#: For the owner, where a download is not begun yet.
WAITING = "waiting for another download"

#: Names that would mix our own environment's packages into the child's.
_NOT_THE_CHILDS = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """All of it is here."""

    folder: Path


@dataclass(frozen=True, slots=True)
class NotFetched:
    """It is not here."""

    #: One sentence for the owner.
    reason: str
    #: Trying again would end the same way.
    incompatible: bool
    #: The last lines that the program wrote.
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Downloads:
    """How this machine fetches models."""

    #: The engine environment's Python, which has huggingface_hub.
    python: Path
    #: Where models are kept, as the hub's library lays them out.
    cache: Path
    lock: RevisionLock
    #: Records of running downloads, beside those of engines.
    run: Path
    reserve_bytes: int = RESERVE_BYTES
    silence_seconds: float = SILENCE_SECONDS_MAX
    program: Path = Path(fetch.__file__)
    #: Added to the agent's environment.
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine_turn(self) -> Path:
        """The file by which processes agree whose turn it is."""
        return self.lock.path.with_name("models.turn")

    async def here(self, source: str, revision: str | None) -> Path | None:
        """Where a model is, whole and at its pinned commit; None: it is not. Raises LockUnreadable, OSError."""
        pinned = await asyncio.to_thread(self.lock.pinned, source, revision)
        if pinned is None:
            return None
        snapshot = self.snapshot(source, pinned.commit)
        return snapshot if await asyncio.to_thread(pinned.is_whole, snapshot) else None

    def snapshot(self, source: str, commit: str) -> Path:
        """Where a model lies when it is here."""
        return fetch.Model(source, commit, self.cache, 0).folder / "snapshots" / commit

    def environment(self) -> dict[str, str]:
        """The child's: its token and proxies are the agent's."""
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
        kept = {"HF_XET_CACHE": str(self.cache / "xet")}
        return {**engine_environment(drop=_NOT_THE_CHILDS), **quiet, **kept, **self.env}


#: What the owner is told on the way: in words, and from 0 to 1 (None: not known).
OnStep = Callable[[str, float | None], None]


class Download:
    """One download of one model."""

    def __init__(self, spec: EngineSpec, downloads: Downloads, on_step: OnStep) -> None:
        self._spec = spec
        self._downloads = downloads
        self._on_step = on_step
        self._session: WardedSession | None = None
        self._stop_asked = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._outcome: Fetched | NotFetched | None = None
        self._total = self._here = 0

    def pids(self) -> tuple[int, ...]:
        """Of the child and all it started."""
        return () if self._session is None else self._session.pids()

    def ask_to_stop(self) -> None:
        """`run` returns soon, whatever it has come to."""
        self._stop_asked = True
        if self._session is not None:
            self._session.ask_to_stop(STOP_SECONDS)

    async def run(self) -> Fetched | NotFetched:
        """Fetch what is missing. What breaks off or is refused is a value; only our own errors are raised."""
        try:
            if folder := await self._downloads.here(self._spec.source, self._spec.revision):
                return Fetched(folder)
            return await self._alone()
        except LockUnreadable as error:
            return NotFetched(str(error), incompatible=True)
        except TimeoutError:
            return NotFetched("The download did not start in time: the machine is overloaded", incompatible=False)
        except OSError as error:
            return NotFetched(f"The model cannot be fetched: {error}", incompatible=False)

    async def _alone(self) -> Fetched | NotFetched:
        """Once nobody else fetches, in this process or another; whoever is stopped waits no longer."""
        turn, told = Turn(self._downloads.machine_turn), False
        while not self._stop_asked:
            # Not in a thread: a cancellation would leave it taken.
            if turn.take():
                try:
                    return await self._run()
                finally:
                    turn.let_go()
            if not told:
                self._on_step(WAITING, None)
                told = True
            await asyncio.sleep(LOOK_SECONDS)
        return NotFetched("Stopped", incompatible=False)

    async def _run(self) -> Fetched | NotFetched:
        lock, source, revision = self._downloads.lock, self._spec.source, self._spec.revision
        # Whoever had the turn before may have fetched this very model.
        if folder := await self._downloads.here(source, revision):
            return Fetched(folder)
        if self._stop_asked:
            return NotFetched("Stopped", incompatible=False)
        pinned = await asyncio.to_thread(lock.pinned, source, revision)
        self._on_step("looking at the model's files", None)
        outcome = await self._fetched(pinned.commit if pinned else revision or DEFAULT_REVISION)
        if isinstance(outcome, Fetched):
            files = await asyncio.to_thread(snapshot_files, outcome.folder)
            await asyncio.to_thread(lock.pin, source, revision, Pinned(outcome.folder.name, files))
        elif outcome.incompatible and pinned is not None and pinned.commit != revision:
            asked = revision or DEFAULT_REVISION
            hint = f"{asked} meant this commit at its first download: delete its entry in {lock.path} to look anew"
            return NotFetched(f"{outcome.reason}. {hint}", True, outcome.tail)
        return outcome

    async def _fetched(self, revision: str) -> Fetched | NotFetched:
        given = self._downloads
        record = record_path(given.run, self._spec.id)
        given.run.mkdir(parents=True, exist_ok=True)
        given.cache.mkdir(parents=True, exist_ok=True)
        session = await WardedSession.spawn(
            (
                *(str(given.python), "-I", str(given.program), "--repository", self._spec.source),
                *("--revision", revision, "--cache", str(given.cache), "--reserve-bytes", str(given.reserve_bytes)),
            ),
            given.environment(),
            remove=(record,),
        )
        self._session = session
        try:
            birth = await session.born()
            if birth is not None:
                # Nothing of it is to be removed with it: what it has fetched is worth keeping.
                nothing = str(given.run / f"{record.stem}.none")
                written = SessionRecord(birth.session, birth.start, birth.boot_id, nothing)
                written.write(record)
            if self._stop_asked:
                session.ask_to_stop(STOP_SECONDS)
            await self._listen(session)
            end = await session.ended()
            if end is None and birth is not None:
                await asyncio.to_thread(kill_session, written)
                record.unlink(missing_ok=True)
        except BaseException:
            await asyncio.shield(session.abandon())
            raise
        session.close()
        return self._result(end)

    async def _listen(self, session: WardedSession) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._downloads.silence_seconds) as limit:
                while True:
                    try:
                        line = await session.output.readline()
                    except ValueError:
                        continue  # A line beyond all bounds; the reader has let go of it.
                    if not line:
                        return
                    if await self._heard(line.decode(errors="replace").rstrip()):
                        limit.reschedule(loop.time() + self._downloads.silence_seconds)
        except TimeoutError:
            seconds = self._downloads.silence_seconds
            self._outcome = NotFetched(f"The download stood still for {seconds:g} s", incompatible=False)
            session.ask_to_stop(STOP_SECONDS)

    async def _heard(self, line: str) -> bool:
        """Take in one line; True where it shows that the download moves."""
        if not line.startswith(fetch.MARK):
            if line:
                self._tail.append(line[:TAIL_LINE_CHARACTERS_MAX])
            return False
        before = self._here
        match json.loads(line.removeprefix(fetch.MARK)):
            case {"event": "found", "commit": str(commit), "bytes": int(total), "here": int(here)}:
                self._total, self._here = total, here
                # Before the first byte: what is interrupted must go on with the same commit.
                pinned = Pinned(commit)
                spec = self._spec
                await asyncio.to_thread(self._downloads.lock.pin, spec.source, spec.revision, pinned)
                self._tell()
                return True
            case {"event": "progress", "here": int(here)}:
                self._here = here
                self._tell()
            case {"event": "fetched", "folder": str(folder)}:
                self._outcome = Fetched(Path(folder))
            case {"event": "refused", "kind": str(kind), "reason": str(reason)}:
                self._outcome = self._refused(kind, reason)
            case unknown:
                raise AssertionError(f"fetch.py told {unknown!r}, which nobody reads")
        return self._here != before

    def _tell(self) -> None:
        fraction = min(1.0, self._here / self._total) if self._total else None
        self._on_step(f"downloading: {gigabytes(self._here)} of {gigabytes(self._total)}", fraction)

    def _refused(self, kind: str, reason: str) -> NotFetched:
        if kind == fetch.DISK:
            reason += f", or take {self._spec.model} off `models`"
        return NotFetched(f"The model is not fetched: {reason}", kind in (fetch.MISSING, fetch.UNSAFE))

    def _result(self, end: End | None) -> Fetched | NotFetched:
        tail = tuple(self._tail)
        match self._outcome:
            case Fetched():
                return self._outcome
            case NotFetched(reason, incompatible):
                return NotFetched(reason, incompatible, tail)
        if self._stop_asked:
            return NotFetched("Stopped", False, tail)
        if end is None:
            return NotFetched("The download's warden was killed, and the download with it", False, tail)
        last = tail[-1] if tail else "without a word"
        return NotFetched(f"The download ended with status {end.returncode}: {last}", False, tail)
