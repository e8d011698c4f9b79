"""An installer's world in a folder: a release of this tree, a clean root, two GPUs that nvidia-smi swears to."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from installer.release import development_key, release, sign
from support.house import ROOT
from support.network import Network, until

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


async def script_of(network: Network) -> str:
    """What curl would give to the shell."""
    async with aiohttp.ClientSession() as session, session.get(f"{network.root_url}/install") as answer:
        assert answer.content_type == "text/x-shellscript"
        return await answer.text()


def clean() -> list[str]:
    """All that lies below the root of a clean machine."""
    return sorted({"/".join(name.split("/")[: n + 1]) for name in CLEAN for n in range(name.count("/") + 1)})


@contextmanager
def an_altered_release(folder: Path, name: str, content: str) -> Iterator[None]:
    """One that has this in one of its files, and is signed all the same."""
    file, key = folder / name, development_key(folder.parent / "key")
    right = file.read_text()
    try:
        file.write_text(content)
        sign(folder, key)
        yield
    finally:
        file.write_text(right)
        sign(folder, key)


def put_torch(folder: Path) -> str:
    """A wheel that says it is a torch for processors, of a version that no index has; what asks pip for it."""
    made = {"torch/__init__.py": "class version:\n    cuda = None\n"}
    about = "torch-0.0.1+ours.dist-info"
    made[f"{about}/METADATA"] = "Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1+ours\n"
    made[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    made[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*made, f"{about}/RECORD"))
    folder.mkdir()
    with zipfile.ZipFile(folder / "torch-0.0.1+ours-py3-none-any.whl", "w") as wheel:
        for name, text in made.items():
            wheel.writestr(name, text)
    return "torch==0.0.1+ours\n"


@dataclass
class Machine:
    """A clean root, and what its owner types."""

    folder: Path

    @property
    def root(self) -> Path:
        """What the installer takes for /."""
        return self.folder / "r"

    def files(self) -> list[str]:
        """All that lies below the root."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))

    async def pipe(self, script: str, *options: str, **environment: str) -> tuple[int, str]:
        """The script piped into a shell that has no terminal; its status, and all that it said."""
        root = {"SHRK_INSTALL_ROOT": str(self.root)}
        return await self._run(("sh", "-s", "--", *options), script, root | environment)

    async def pipe_until(self, done: Callable[[], bool], script: str, *options: str, **environment: str) -> str:
        """The same, and Ctrl-C once it is `done`; what it said."""
        root = {"SHRK_INSTALL_ROOT": str(self.root)}
        process = await self._begin(("sh", "-s", "--", *options), root | environment)
        saying = asyncio.create_task(process.communicate(script.encode()))
        await until(lambda: done() or saying.done(), "it has come so far")
        assert not saying.done(), saying.result()[0].decode()
        os.killpg(process.pid, signal.SIGINT)
        said, _ = await saying
        assert process.returncode == 1
        return said.decode()

    async def type(self, command: Path, *words: str, **environment: str) -> tuple[int, str]:
        """A command that the installer left there, by its path, from another folder; as `pipe`."""
        return await self._run((str(command), *words), "", environment)

    async def _run(self, command: tuple[str, ...], stdin: str, environment: dict[str, str]) -> tuple[int, str]:
        process = await self._begin(command, environment)
        said, _ = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def _begin(self, command: tuple[str, ...], environment: dict[str, str]) -> asyncio.subprocess.Process:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SHRK_")}
        ours = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "TMPDIR": str(self.folder / "tmp")}
        return await asyncio.create_subprocess_exec(
            *command,
            env=inherited | ours | environment,
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def a_machine() -> Iterator[Machine]:
    """A machine with two GPUs. Its path is short: sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="shrk-"))
    try:
        for name in CLEAN:
            (folder / "r" / name).mkdir(parents=True)
        (folder / "tmp").mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
        (folder / "bin" / "nvidia-smi").chmod(0o755)
        yield Machine(folder)
    finally:
        shutil.rmtree(folder)
