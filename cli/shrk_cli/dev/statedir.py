"""The folder a dev network lives in: made, locked to one network, and what it remembers."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from shrk_cli.dev.plan import check_state_dir, sockets_fit
from shrk_cli.errors import Exit, Trouble

LOCK_FILE = "dev.lock"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a kept network needs to come back as itself: its keys are shown only once by the coordinator,
    and its nodes know it by its ports."""

    api_key: str
    admin_key: str
    link_port: int
    enrolment_port: int


def create(given: Path | None) -> tuple[Path, bool]:
    """(the folder, whether it is temporary and ours to remove). Raises Trouble where it cannot be."""
    if given is None:
        # In TMPDIR, unless that is so deep that sockets would not fit.
        usual = Path(tempfile.gettempdir()).resolve()
        place = usual if sockets_fit(usual / "shrk-12345678") else Path("/tmp")
        return Path(tempfile.mkdtemp(prefix="shrk-", dir=place)), True
    folder = given.expanduser().absolute()
    check_state_dir(folder)
    if folder.exists() and not folder.is_dir():
        raise _unusable(folder, "it is a file, not a folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Trouble(
            f"--state-dir {folder} cannot be used",
            why=str(error),
            remedy="choose a folder that you may write to, or leave the option out",
        ) from error
    # The lock is the first thing that a network makes: without it, what lies there is somebody else's.
    if any(folder.iterdir()) and not (folder / LOCK_FILE).exists():
        raise _unusable(folder, "it is not empty, and no network of shrk dev was kept in it")
    return folder, False


def _unusable(folder: Path, why: str) -> Trouble:
    return Trouble(
        f"--state-dir {folder} cannot be used",
        why=why,
        remedy="name a new or empty folder, or one that shrk dev kept a network in, or leave the option out",
        code=Exit.USAGE,
    )


def lock(folder: Path) -> int:
    """Take the folder for this network; returns the lock's descriptor, which holds it while open anywhere.

    Raises Trouble when another network lives there.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise Trouble(
            f"another shrk dev uses --state-dir {folder}",
            why=f"its process id is {owner}" if owner else "it is just starting or stopping",
            remedy="stop that one, or choose another --state-dir",
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def recall(file: Path) -> Memory | None:
    """What the last network in this folder left. Raises Trouble when the file is damaged."""
    if not file.exists():
        return None
    try:
        return Memory(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise Trouble(
            f"{file} is damaged",
            why=str(error),
            remedy=f"remove it; new keys are made then: rm {file}",
        ) from error


def remember(file: Path, memory: Memory) -> None:
    """Keep it for the next start, readable by its owner only."""
    fresh = file.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(asdict(memory), stream)
    fresh.replace(file)
