"""What starts and stops the agent on this machine: systemd, the installer's own service, or nothing but this command.

A folder that was named for this one call (--state-dir, SHRK_STATE_DIR) is never the service's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands.tailing import last_lines

UNIT = "shrk-node.service"
#: systemd answers from memory; where it does not, it is not there.
ASK_SECONDS_MAX = 10.0
#: `systemctl start` returns once the agent says that it is ready: its unit gives it two minutes.
START_SECONDS_MAX = 150.0


class ServiceFailed(Trouble):
    """The service could not be started or stopped. `str()` says what its keeper said, and what to do."""


@dataclass(frozen=True, slots=True)
class Systemd:
    """A unit of the machine, or of this user."""

    user: bool

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command, as one types it."""
        return ("systemctl", "--user") if self.user else ("systemctl",)

    @property
    def journal(self) -> tuple[str, ...]:
        """What shows the agent's log."""
        return ("journalctl", *(("--user",) if self.user else ()), "--unit", UNIT, "--output", "cat", "--no-pager")

    def property(self, name: str) -> str:
        """One property of the unit; "" where systemd does not tell it."""
        return _said((*self.systemctl, "show", "--property", name, "--value", UNIT))

    def state(self) -> str:
        """In words: `active (running)`, `failed (failed)`."""
        return f"{self.property('ActiveState') or 'unknown'} ({self.property('SubState') or 'unknown'})"

    def order(self, *words: str) -> None:
        """Have systemd do something. Raises ServiceFailed."""
        _order((*self.systemctl, *words, UNIT), f"sudo {' '.join((*self.systemctl, *words))} {UNIT}")


@dataclass(frozen=True, slots=True)
class Script:
    """The service that the installer puts beside the command on machines without systemd."""

    path: Path

    def order(self, word: str) -> None:
        """`start` or `stop`. Raises ServiceFailed."""
        _order((str(self.path), word), f"sudo {self.path} {word}")


@dataclass(frozen=True, slots=True)
class Plain:
    """Nobody: `shrk start` itself puts the agent into the background."""


Keeper = Systemd | Script | Plain


def keeper(flag: Path | None, prefix: Path | None = None) -> Keeper:
    """Who keeps the agent. `flag`: the folder as it was named for this call; `prefix`: the environment's, where the
    installer leaves its service."""
    if flag or os.environ.get("SHRK_STATE_DIR"):
        return Plain()
    if shutil.which("systemctl"):
        for user in (False, True):
            unit = Systemd(user)
            if unit.property("LoadState") == "loaded":
                return unit
    script = (prefix or Path(sys.prefix)) / "service"
    return Script(script) if os.access(script, os.X_OK) else Plain()


def agent_log(state_dir: Path, kept_by: Keeper) -> Path:
    """The file that the agent writes its log to; systemd has a journal instead."""
    # The installer's service logs beside the node's folder, where only it can write.
    return state_dir.parent / "service.log" if isinstance(kept_by, Script) else state_dir / "logs" / "agent.log"


def last_words(state_dir: Path, kept_by: Keeper, lines: int) -> list[str]:
    """The last lines of the agent's log; none where there is none, or it may not be read."""
    if isinstance(kept_by, Systemd):
        return _said((*kept_by.journal, "--lines", str(lines))).splitlines()[-lines:]
    try:
        return last_lines(agent_log(state_dir, kept_by), lines)
    except OSError:
        return []


def _said(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _order(command: tuple[str, ...], remedy: str) -> None:
    words = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False)
    except OSError as error:
        raise ServiceFailed(f"{words} could not be run ({error.strerror}). Try: {remedy}") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceFailed(f"{words} did not return within {START_SECONDS_MAX:g} s. Read: shrk logs") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"it ended with {done.returncode}"
        raise ServiceFailed(f"{words} failed: {said}. Try: {remedy}; its log: shrk logs")
