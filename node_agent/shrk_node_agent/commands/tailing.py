"""The last lines of a log file, and what is added to it, also when it is rotated: a new file takes its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

#: Of a log's end so much is looked through for lines: some thousands of them.
TAIL_BYTES_MAX = 1024 * 1024
#: What is read at once while a log is followed.
READ_BYTES_MAX = 64 * 1024


def last_lines(path: Path, lines: int) -> list[str]:
    """The last lines of a file, without their ends. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return _last(file, lines)


def follow(path: Path, lines: int, breathe: Callable[[], None]) -> Iterator[str]:
    """The last lines, then each new one as it is complete, for ever. `breathe` is called when there is nothing to read.

    A file that does not exist yet is waited for. Raises OSError where it cannot be read.
    """
    file: BufferedReader | None = None
    rest = b""
    first = True
    try:
        while True:
            if file is None:
                if (file := _opened(path)) is None:
                    breathe()
                    continue
                if first:
                    yield from _last(file, lines)
                first = False  # of the next file, all that is in it
            if received := file.read(READ_BYTES_MAX):
                *complete, rest = (rest + received).split(b"\n")
                yield from (line.decode(errors="replace") for line in complete)
            elif _replaced(path, file):
                if rest:
                    yield rest.decode(errors="replace")
                file.close()
                file, rest = _opened(path), b""
            elif os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)  # it was emptied in place
                rest = b""
            else:
                breathe()
    finally:
        if file is not None:
            file.close()


def _last(file: BufferedReader, lines: int) -> list[str]:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - TAIL_BYTES_MAX))
    whole = file.read().decode(errors="replace").splitlines()
    return whole[-lines:] if lines else []


def _opened(path: Path) -> BufferedReader | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _replaced(path: Path, file: BufferedReader) -> bool:
    """Whether the name belongs to another file now. While there is none, the old one is followed on."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(file.fileno())
    return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)
