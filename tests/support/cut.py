"""Runs the beginning of a shell script, cut off at any byte, where whatever it does is seen.

`python tests/support/cut.py` tries every byte of the installer (about two minutes); the tests try some of them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Every program that the installer calls, and some that no installer should: each stub notes that it was called.
_NAMES = """
[ adduser awk cat chgrp chmod chown cmp cp curl cut deluser df dnf env find grep head id journalctl kill ln loginctl
mkdir mktemp mv nohup nvidia-smi openssl paste pip python3 python3.11 python3.12 python3.13 python3.14 readlink rm
rmdir sed seq sha256sum sleep sudo systemctl tail test touch tr uname useradd userdel usermod wget
"""
STUB = '#!/bin/sh\nprintf "%s\\n" "$0 $*" >>{called}\n'


@dataclass
class Sandbox:
    """An empty folder, in which a script finds stubs and nothing else."""

    folder: Path

    def harm(self, script: bytes, shell: tuple[str, ...] = ("/bin/sh",)) -> str:
        """What a script did: programs called, words said, files made; nothing: "". Its complaints do not count."""
        place, called = self.folder / "place", self.folder / "called"
        environment = {"PATH": str(self.folder / "bin"), "HOME": str(place), "TMPDIR": str(place)}
        environment |= {"SHRK_YES": "1", "SHRK_INSTALL_ROOT": str(place)}
        ran = subprocess.run(shell, input=script, capture_output=True, cwd=place, env=environment)
        done = [f"called {call}" for call in (called.read_text().splitlines() if called.exists() else ())]
        done += [f"made {path}" for path in place.rglob("*")]
        done += [f"said {ran.stdout.decode(errors='replace')}"] if ran.stdout else []
        called.unlink(missing_ok=True)
        return "; ".join(done)


@contextmanager
def a_sandbox() -> Iterator[Sandbox]:
    """One sandbox; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="shrk-cut-") as name:
        folder = Path(name)
        (folder / "bin").mkdir()
        (folder / "place").mkdir()
        for command in _NAMES.split():
            stub = folder / "bin" / command
            stub.write_text(STUB.format(called=folder / "called"))
            stub.chmod(0o755)
        yield Sandbox(folder)


def harmful(script: bytes, lengths: Iterable[int], shell: tuple[str, ...] = ("/bin/sh",)) -> dict[int, str]:
    """Of the beginnings of these lengths those that do something, and what."""
    with a_sandbox() as sandbox:
        return {length: harm for length in lengths if (harm := sandbox.harm(script[:length], shell))}


def main() -> int:
    """Try every byte of the script named, or of the installer."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "installer" / "install.sh"
    script = path.read_bytes()
    found = harmful(script, range(len(script)))
    print(f"{path.name}: cut at each of {len(script)} bytes, {len(found)} did something")
    for length, harm in list(found.items())[:10]:
        print(f"  cut at {length}: {harm}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
