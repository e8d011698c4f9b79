"""Takes one model's files off this machine: all that the hub's library keeps of its repository, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

#: ORG/NAME, or a bare NAME of the hub's oldest models. No part begins with a dot.
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")


class NotRemoved(Exception):
    """Nothing, or not all of it, was removed; the words say why, and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder of models holds of one repository."""

    folder: Path
    #: The locks of the hub's library, beside all models.
    locks: Path

    @property
    def is_here(self) -> bool:
        """Whether there is anything of it."""
        return self.folder.is_dir()

    def size(self) -> int:
        """Bytes on the disk. Looks at each file."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                found = (Path(folder) / name).lstat()
                total += min(found.st_size, found.st_blocks * 512)
        return total

    def remove(self) -> None:
        """All of it; what it cannot remove stays, and is told. Raises NotRemoved."""
        for folder in (self.folder, self.locks):
            try:
                # It does not follow links: not those of snapshots to blobs, and not one in place of the folder.
                shutil.rmtree(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise NotRemoved(
                    f"{error.filename or folder} cannot be removed: {error.strerror}. Try it with sudo"
                ) from error


def kept(cache: Path, repository: str) -> Kept:
    """What `cache` may hold of a repository. Raises NotRemoved for a name that could lead out of the folder, and for a
    link in place of a folder: its files are somebody else's."""
    if not _REPOSITORY.fullmatch(repository):
        raise NotRemoved(f"{repository!r} is no model of the hub, ORG/NAME: nothing of it is in {cache}")
    name = "models--" + repository.replace("/", "--")
    folder, locks = cache / name, cache / ".locks" / name
    for path in (cache / ".locks", folder, locks):
        if path.is_symlink():
            raise NotRemoved(
                f"{path} is a link to {path.readlink()}, outside of {cache}: what is there is left alone. Remove the "
                "link by hand"
            )
    return Kept(folder, locks)
