"""The janitor waits for everything to be gone, and then tidies; nothing can be left by killing `shrk dev`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shrk_cli.dev.processes import python
from support.processes import wait_until


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether the kernel says that a process ignores a signal."""
    mask = re.search(r"^SigIgn:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert mask is not None
    return bool(int(mask[1], 16) >> (number - 1) & 1)


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    lifeline: int

    def ends(self) -> int:
        return self.process.wait(30)

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("content")
    return folder


@pytest.fixture
def janitor(scene: Path) -> Iterator[Running]:
    read, write = os.pipe()
    process = subprocess.Popen(
        [*python("-m", "shrk_cli.dev.janitor", "--lifeline", str(read), "--remove", str(scene))],
        stdin=subprocess.PIPE,
        pass_fds=[read],
    )
    os.close(read)
    running = Running(process, write)
    yield running
    process.kill()
    process.wait()
    running.let_go()


def test_the_folder_goes_once_shrk_dev_and_every_warden_are_gone(scene: Path, janitor: Running) -> None:
    janitor.let_go()
    with pytest.raises(subprocess.TimeoutExpired):
        janitor.process.wait(0.3)
    assert scene.exists()  # a warden still holds its end of the lifeline
    os.close(janitor.lifeline)
    assert janitor.ends() == 0
    assert not scene.exists()


def test_a_warden_that_hangs_does_not_keep_the_janitor_for_ever(scene: Path, janitor: Running) -> None:
    janitor.let_go()
    assert janitor.ends() == 0
    assert not scene.exists()
    os.close(janitor.lifeline)


def test_signals_that_stop_others_do_not_stop_the_janitor(scene: Path, janitor: Running) -> None:
    # It ignores them from its first statement on; until Python has started they would end it.
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    # All three: one may have been ignored before (under nohup SIGHUP is).
    wait_until(lambda: all(ignores(janitor.process.pid, number) for number in numbers), "all three ignored")
    for number in numbers:
        janitor.process.send_signal(number)
    os.close(janitor.lifeline)
    janitor.let_go()
    assert janitor.ends() == 0
    assert not scene.exists()


def test_a_kept_folder_loses_its_sockets_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "k"
    (kept / "run").mkdir(parents=True)
    (kept / "run" / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(kept / "run" / "s"))
    done = subprocess.run(
        [*python("-m", "shrk_cli.dev.janitor", "--lifeline", "0", "--unsocket", str(kept))],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert [path.name for path in (kept / "run").iterdir()] == ["file"]
