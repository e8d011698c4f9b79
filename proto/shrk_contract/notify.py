"""What a service tells the service manager that started it (systemd's sd_notify), without a library.

Without NOTIFY_SOCKET, as in a terminal, nothing is told and nothing fails.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

#: Times that we are heard within the manager's patience: one lost datagram or late tick must not end a service.
BEATS_PER_PATIENCE_MIN = 3


class Overseer:
    """Whoever started this process and wants to hear of it."""

    def __init__(self, address: str = "", patience_seconds: float | None = None) -> None:
        """`address`: of a unix datagram socket, `@` first for an abstract one; empty: nobody listens.
        `patience_seconds`: who is not heard for so long is ended; None: nobody watches."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._beat_seconds = None if patience_seconds is None else patience_seconds / BEATS_PER_PATIENCE_MIN
        self._next_beat = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Overseer:
        """The manager that this environment names. A watchdog meant for another process is none of ours."""
        patience = None
        microseconds = environment.get("WATCHDOG_USEC", "")
        if microseconds.isdecimal() and environment.get("WATCHDOG_PID", str(pid)) == str(pid):
            patience = int(microseconds) / 1e6
        return cls(environment.get("NOTIFY_SOCKET", ""), patience)

    @classmethod
    def of_this_process(cls) -> Overseer:
        """The manager that started this process."""
        return cls.of(os.environ, os.getpid())

    def ready(self) -> None:
        """Everything is open."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def lasting(self, seconds: float) -> None:
        """The end takes so long at most, from now on: more than the unit allows, where it is more."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def turned(self, now: float) -> None:
        """The service's loop turns; `now` is in monotonic seconds. Told as often as the watchdog needs it."""
        if self._beat_seconds is not None and now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            self._tell("WATCHDOG=1")

    def _tell(self, word: str) -> None:
        if not self._address:
            return
        # A manager that is gone, or does not read, must not end the service or hold it up: it will ask by itself.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)
            speaker.sendto(word.encode(), self._address)
