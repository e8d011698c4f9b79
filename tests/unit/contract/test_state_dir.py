"""One coordinator per state folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shrk_contract.state_dir import StateDirBusy, StateDirLock

HOLD = """
import sys
from pathlib import Path
from shrk_contract.state_dir import StateDirLock
lock = StateDirLock.acquire(Path(sys.argv[1]), "service")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_coordinator_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    lock = StateDirLock.acquire(tmp_path, "service")
    with pytest.raises(StateDirBusy, match=rf"pid {os.getpid()}\).*--state-dir"):
        StateDirLock.acquire(tmp_path, "service")
    lock.release()
    lock.release()
    StateDirLock.acquire(tmp_path, "service").release()


def test_a_killed_coordinator_leaves_the_folder_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateDirBusy, match=f"pid {holder.pid}"):
            StateDirLock.acquire(tmp_path, "service")
        holder.kill()
        holder.wait()
    StateDirLock.acquire(tmp_path, "service").release()
