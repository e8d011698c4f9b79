"""The logs of a dev network: their last lines, and a bound on their size."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

#: What a process may have written last that is worth showing.
TAIL_LINES = 15
TAIL_BYTES_MAX = 16 * 1024
#: One log and its predecessor: a forgotten `shrk dev` must not fill the disk.
LOG_BYTES_MAX = 16 * 1024 * 1024


def tail(log: Path | None, lines: int = TAIL_LINES) -> Sequence[str]:
    """The last lines of a log; empty where there is none."""
    if log is None or not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES_MAX))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def keep(log: Path, name: str) -> str:
    """Copy a log to the system's temporary folder; its new place, or in words why it has none."""
    try:
        number, copy = tempfile.mkstemp(prefix=f"shrk-dev-{name}-", suffix=".log")
        with open(number, "wb") as target, log.open("rb") as source:
            shutil.copyfileobj(source, target)
    except OSError as error:  # a full disk must not hide why the log was wanted
        return f"could not be kept: {error}"
    return copy


def bound(folder: Path) -> None:
    """Move what a log above LOG_BYTES_MAX holds into NAME.log.1, replacing the last one.

    The log itself is emptied in place: the process that appends to it goes on without being told.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
