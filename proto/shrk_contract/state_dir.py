"""One service per state folder: two coordinators on one database would each believe in their own memory, and two
agents would take each other's engines for leftovers."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shrk_contract.trouble import Trouble


class StateDirBusy(Trouble):
    """Another process uses the folder. `str()` names it."""


class StateDirLock:
    """Held from `acquire` to `release`, or to the end of the process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, state_dir: Path, service: str) -> StateDirLock:
        """Take the folder for `service` ("coordinator"). Raises StateDirBusy at once where a live process has it."""
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = state_dir / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StateDirBusy(
                f"another {service} (pid {holder or 'unknown'}) already uses {state_dir}. Stop it first, or give "
                "this one a folder of its own: --state-dir DIR"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give the folder free; a second call does nothing. The file stays: removing it would race."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
