"""An installer's world in a folder: a release of this tree, a clean root, two GPUs that nvidia-smi swears to."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer.release import development_key, release
from support.house import ROOT

SCRIPT = ROOT / "installer" / "install.sh"
NVIDIA_SMI = """#!/bin/sh
echo '0, NVIDIA GeForce RTX 4090, 24564 MiB, 580.82, 41'
echo '1, NVIDIA GeForce RTX 3060, 12288 MiB, 580.82, 38'
"""
#: Folders that every machine has; what else is there after an uninstallation was left behind.
CLEAN = ("etc", "opt", "usr/local/bin", "var/lib")


def make_release(folder: Path) -> str:
    """A release of this tree, signed by a key of its own; returns the version."""
    return release(folder, development_key(folder.parent / "key"))


@dataclass
class Machine:
    """A clean root, and what its owner types."""

    folder: Path

    @property
    def root(self) -> Path:
        """What the installer takes for /."""
        return self.folder / "root"

    def files(self) -> list[str]:
        """All that lies below the root."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))

    async def pipe(self, script: str, *options: str, **environment: str) -> tuple[int, str]:
        """The script piped into a shell that has no terminal; its status, and all that it said."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-s",
            "--",
            *options,
            env=inherited
            | {
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "SHRK_INSTALL_ROOT": str(self.root),
                "TMPDIR": str(self.folder / "tmp"),
            }
            | environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        said, _ = await process.communicate(script.encode())
        assert process.returncode is not None
        return process.returncode, said.decode()


@contextmanager
def a_machine() -> Iterator[Machine]:
    """A machine with two GPUs. Its path is short: sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="shrk-"))
    try:
        for name in CLEAN:
            (folder / "root" / name).mkdir(parents=True)
        (folder / "tmp").mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
        (folder / "bin" / "nvidia-smi").chmod(0o755)
        yield Machine(folder)
    finally:
        shutil.rmtree(folder)
