"""Which commit of a model this node serves: found at its first download, kept in a file, so that no restart drifts.

`models.lock` is JSON, for people too: delete a model's entry, and its revision is looked up anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shrk_contract import durable

#: What the hub calls a repository's newest state.
DEFAULT_REVISION = "main"


class LockUnreadable(Exception):
    """The file holds something else; the words say what to do."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One model as this node has it."""

    commit: str
    #: Path in the snapshot and bytes, of all its files; empty until all of them are here.
    files: Mapping[str, int] = field(default_factory=dict)

    def is_whole(self, snapshot: Path) -> bool:
        """Whether all its files are in the folder. Looks at each: call it in a thread."""
        return bool(self.files) and all(_size(snapshot / path) == size for path, size in self.files.items())


class RevisionLock:
    """The file. Who changes it has the turn (`turn.py`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pinned(self, source: str, revision: str | None) -> Pinned | None:
        """What was found for this revision (None: the default one); None before. Raises LockUnreadable, OSError."""
        return self._read().get(_key(source, revision))

    def pin(self, source: str, revision: str | None, pinned: Pinned) -> None:
        """Keep it. Raises LockUnreadable, OSError."""
        self._write(self._read() | {_key(source, revision): pinned})

    def forget(self, source: str) -> dict[str, Pinned]:
        """All that is kept of a repository, which is kept no more; for `keep`. Raises LockUnreadable, OSError."""
        models = self._read()
        gone = {key: one for key, one in models.items() if key.startswith(f"{source}@")}
        if gone:
            self._write({key: one for key, one in models.items() if key not in gone})
        return gone

    def keep(self, forgotten: Mapping[str, Pinned]) -> None:
        """Take a `forget` back. Raises LockUnreadable, OSError."""
        if forgotten:
            self._write({**self._read(), **forgotten})

    def _write(self, models: Mapping[str, Pinned]) -> None:
        told = {key: {"commit": one.commit, "files": dict(one.files)} for key, one in sorted(models.items())}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self.path, json.dumps({"schema": 1, "models": told}, indent=1).encode() + b"\n", 0o644)

    def _read(self) -> dict[str, Pinned]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            return {key: _pinned(one) for key, one in json.loads(content)["models"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LockUnreadable(
                f"{self.path} cannot be read ({error}); delete it, and each model's newest revision is pinned anew"
            ) from error


def snapshot_files(snapshot: Path) -> dict[str, int]:
    """Path and bytes of all files below a folder. Call it in a thread."""
    files = (path for path in sorted(snapshot.rglob("*")) if path.is_file())
    return {str(path.relative_to(snapshot)): path.stat().st_size for path in files}


def _key(source: str, revision: str | None) -> str:
    return f"{source}@{revision or DEFAULT_REVISION}"


def _pinned(one: Mapping[str, Any]) -> Pinned:
    commit, files = one["commit"], one["files"]
    if not isinstance(commit, str) or not all(isinstance(size, int) for size in files.values()):
        raise ValueError("a commit and the sizes of files are wanted")
    return Pinned(commit, files)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # Not there, or its disk is away: then it is fetched, which tells why not.
