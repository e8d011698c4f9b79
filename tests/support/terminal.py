"""A person at a terminal: a command on a pseudo-terminal of its own, what it shows, and what is typed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

#: Far above what anything here takes: it only ends a test that hangs.
SECONDS_MAX = 60.0
#: A person who sees nothing happen presses again.
AGAIN_SECONDS = 5.0


class Terminal:
    """The command that runs on it, and all that it has shown."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.shown = ""
        self._master = master
        self._seen = 0

    def wait_for(self, words: str) -> None:
        """Until these words are shown, behind those that were waited for before."""
        while (place := self.shown.find(words, self._seen)) < 0:
            assert self._read(), f"it ended without {words!r}:\n{self.shown}"
        self._seen = place + len(words)

    def type(self, text: str) -> None:
        """A line, as a person types it."""
        os.write(self._master, f"{text}\n".encode())

    def answer(self, words: str, text: str) -> None:
        """Type a line once the words are shown."""
        self.wait_for(words)
        self.type(text)

    def press_ctrl_c(self) -> None:
        """The terminal makes a signal of it, for all that runs in its foreground."""
        os.write(self._master, b"\x03")

    def interrupt(self) -> int:
        """Press Ctrl-C, as a person does: again where nothing follows; the exit status.

        CPython misses one that comes in the moment in which it begins to wait for a line.
        """
        self.press_ctrl_c()
        while self._tells(AGAIN_SECONDS):
            if not self._read():
                return self.process.wait(SECONDS_MAX)
        return self.interrupt()

    def end(self) -> int:
        """The exit status, once it has ended; all that it showed is in `shown` then."""
        while self._read():
            pass
        return self.process.wait(SECONDS_MAX)

    def _tells(self, seconds: float) -> bool:
        return bool(select.select([self._master], [], [], seconds)[0])

    def _read(self) -> bool:
        assert self._tells(SECONDS_MAX), f"it shows nothing more:\n{self.shown}"
        try:
            read = os.read(self._master, 65_536)
        except OSError:
            return False  # Linux says so once nobody has the other end open.
        self.shown += read.decode(errors="replace").replace("\r\n", "\n")
        return bool(read)


@contextmanager
def at_a_terminal(words: Sequence[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """`shrk WORDS`, on a terminal of 120 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        # Only who opens a terminal itself, in a session of its own, gets the signals of its keys.
        [sys.executable, "-c", _SHRK, os.ttyname(slave), *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**env, "COLUMNS": "120", "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(master)


_SHRK = """
import os, sys
os.close(os.open(sys.argv[1], os.O_RDWR))
sys.argv = ["shrk", *sys.argv[2:]]
from shrk_cli.main import main
main()
"""
