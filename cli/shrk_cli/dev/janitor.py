"""Tidies up after `shrk dev`, however it ended: a small process that outlives it by a moment.

Run as `python -m shrk_cli.dev.janitor --lifeline FD [--remove PATH ...] [--unsocket FOLDER ...]`.

Two pipes tell it what happened, so that no process id has to be trusted (ids get recycled):
* fd 0: `shrk dev` alone holds the write end; end of file means it is gone, or done.
* the lifeline: `shrk dev` and every warden it started hold the write end; end of file means that all of
  them are gone, and a warden goes only after everything below it.
Then it removes what it was told to. Standard library only: it must start fast and stay small.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

#: How long wardens may take after the end of `shrk dev`. They promise 4 s from kill -9 to nothing left.
WARDENS_SECONDS_MAX = 4.5
#: How long a removal is tried again: a process that is just dying may still create files.
REMOVAL_SECONDS_MAX = 2.0


def main(arguments: Sequence[str]) -> int:
    """Wait for the end, then tidy. Returns 1 when something could not be removed."""
    options = _parse(arguments)
    # It has to outlive a Ctrl-C, a closed terminal and a polite kill of the whole group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _wait_for_end_of_file(0, None)
    _wait_for_end_of_file(options.lifeline, WARDENS_SECONDS_MAX)
    left = [failure for path in options.remove if (failure := _remove(path))]
    for folder in options.unsocket:
        _remove_sockets(folder)
    for path, error in left:
        print(f"shrk dev: {path} could not be removed: {error}", file=sys.stderr)
    return 1 if left else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m shrk_cli.dev.janitor", description=__doc__)
    parser.add_argument("--lifeline", type=int, required=True, help="read end of the pipe that wardens hold")
    parser.add_argument("--remove", type=Path, action="append", default=[], help="a file or folder to remove")
    parser.add_argument("--unsocket", type=Path, action="append", default=[], help="a folder to free of sockets")
    return parser.parse_args(arguments)


def _wait_for_end_of_file(fd: int, seconds_max: float | None) -> None:
    """Read and drop until end of file, or until the time is up."""
    deadline = None if seconds_max is None else time.monotonic() + seconds_max
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([fd], [], [], left)
        if not readable or not os.read(fd, 4096):
            return


def _remove(path: Path) -> tuple[Path, OSError] | None:
    """Remove a file or a whole folder; returns the path and why, should it stay."""
    deadline = time.monotonic() + REMOVAL_SECONDS_MAX
    while True:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return None
        except FileNotFoundError:
            continue  # someone else removed a part of it meanwhile
        except OSError as error:
            if time.monotonic() > deadline:
                return path, error
            time.sleep(0.05)  # Whoever still holds or writes it tells nobody when it has let go.


def _remove_sockets(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(FileNotFoundError):  # its owner may be faster
                if stat.S_ISSOCK(path.lstat().st_mode):
                    path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
