"""Files that outlive a power cut: what is written is on the disk before anybody goes on."""

from __future__ import annotations

import os
from pathlib import Path


def write_new(path: Path, content: bytes, mode: int) -> None:
    """A file that was not there. Raises FileExistsError where it was."""
    _write(path, content, mode, os.O_EXCL)


def replace(path: Path, content: bytes, mode: int) -> None:
    """Write beside, sync, rename, sync: after a power cut it is the old file or the new one."""
    making = path.with_name(path.name + ".making")
    _write(making, content, mode, os.O_TRUNC)
    making.replace(path)
    sync_folder(path.parent)


def replace_kept(path: Path, content: bytes, mode: int) -> None:
    """As `replace`, but the file keeps its mode and its owner; `mode` is for one that was not there.

    A link stays one: what it leads to is replaced.
    """
    path = path.resolve()
    making = path.with_name(path.name + ".making")
    making.unlink(missing_ok=True)  # of somebody who was killed: its mode is not ours
    kept = path.stat() if path.exists() else None
    try:
        # Closed to all others until it has the owner for whom its mode is meant.
        _write(making, content, 0o600, os.O_EXCL)
        if kept is not None:
            os.chown(making, kept.st_uid, kept.st_gid)
        making.chmod(mode if kept is None else kept.st_mode & 0o7777)
        making.replace(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """The names in a folder reach the disk: what was made, renamed and removed there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
