"""What an agent does first: kill what an earlier life of it left behind.

While an engine runs, a record `run/<engine id>.json` names its session. The warden removes the record when it
has cleaned up, so a record found at start means that the warden itself was killed. Then the session is swept:
by session id, start time and boot id, never by name. The engine's own names say nothing (setproctitle wipes
command line and environment, and another owner's engine has the same ones), and a session's number cannot be
given away as long as a member of it lives.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from shrk_node_agent.engine.warden import boot_id, living_processes, read_process, remove

#: SIGKILL works at once, save for a process held inside a driver: the start must not hang on that.
SWEEP_SECONDS_MAX = 5.0
#: Between two looks at /proc.
SWEEP_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Names the session of one engine for ever."""

    session: int
    #: The leader's start, in clock ticks since boot.
    start: int
    boot_id: str
    #: The engine's folder for its socket and temporary files, removed with it.
    folder: str

    @classmethod
    def read(cls, path: Path) -> SessionRecord:
        """Raises ValueError where the file holds anything else, OSError where it cannot be read."""
        fields = json.loads(path.read_bytes())
        match fields:
            case {"session": int(), "start": int(), "boot_id": str(), "folder": str(folder)} if (
                len(fields) == 4 and Path(folder).is_absolute()
            ):
                return cls(**fields)
        raise ValueError("session, start, boot_id and an absolute folder are wanted")

    def write(self, path: Path) -> None:
        """Write it in one step: a reader sees the whole record or none."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found for one record."""

    engine_id: str
    #: The processes that were killed.
    killed: tuple[int, ...]
    #: What could not be done, in a sentence; empty when all went well.
    problem: str = ""


def record_path(run: Path, engine_id: str) -> Path:
    """Where the record of one engine lies."""
    return run / f"{quote(engine_id, safe='')}.json"  # A model's name may hold slashes.


def members(record: SessionRecord) -> list[int]:
    """The living processes of the recorded session; empty when it is not the session that was recorded."""
    if record.boot_id != boot_id():
        return []
    leader = read_process(record.session)
    if leader is not None and leader.start != record.start:
        return []  # The number has been given to somebody else since.
    me = os.getpid()
    return [
        entry.pid
        for entry in living_processes()
        if entry.session == record.session and entry.start >= record.start and entry.pid != me
    ]


def kill_session(record: SessionRecord) -> tuple[int, ...]:
    """SIGKILL every member until none is left; the pids that were killed. Blocks up to SWEEP_SECONDS_MAX."""
    killed: set[int] = set()
    deadline = time.monotonic() + SWEEP_SECONDS_MAX
    while (alive := members(record)) and time.monotonic() < deadline:
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                continue  # It went by itself in this very moment.
        time.sleep(SWEEP_INTERVAL_SECONDS)  # They are nobody's children here: that they are gone only /proc tells.
    return tuple(sorted(killed))


def sweep(run: Path) -> tuple[Swept, ...]:
    """Kill what the records in `run` still name, and remove their folders and the records.

    Must not be called while engines of this agent run: their records are here too.
    """
    return tuple(_sweep_one(path) for path in sorted(run.glob("*.json")))


def _sweep_one(path: Path) -> Swept:
    engine_id = unquote(path.stem)
    try:
        record = SessionRecord.read(path)
    except ValueError as error:
        path.unlink(missing_ok=True)
        return Swept(engine_id, (), f"{path} was no record ({error}), and has been removed")
    killed = kill_session(record)
    if left := members(record):
        return Swept(engine_id, killed, f"processes {left} do not end; a restart of the machine will help")
    try:
        remove(Path(record.folder))
    except OSError as error:
        return Swept(engine_id, killed, f"cannot remove {record.folder}: {error.strerror}")
    path.unlink(missing_ok=True)
    return Swept(engine_id, killed)
