"""An owner's pause: how long it may be, and the file that keeps it while no agent runs.

A pause is a promise to the owner: a crash, an upgrade or a restart of the machine does not end it.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from shrk_contract import durable

#: A pause is for an evening or a holiday. Who wants longer stops the agent.
PAUSE_SECONDS_MAX = 30 * 86_400
#: Below this a pause ends before what runs has ended.
PAUSE_SECONDS_MIN = 60


class PauseUnreadable(Exception):
    """The file holds something else; the words say what to do."""


class PauseFile:
    """`pause.json` in the state folder; it is there while a pause holds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, seconds: float | None, now: datetime) -> None:
        """A pause of so many seconds begins; None: until it is resumed. Raises OSError."""
        until = None if seconds is None else (now + timedelta(seconds=seconds)).isoformat()
        durable.replace(self._path, json.dumps({"schema": 1, "until": until}).encode() + b"\n", 0o644)

    def forget(self) -> None:
        """It is over. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def left(self, now: datetime) -> float | None:
        """Seconds that are left of a pause, 0 where there is none; None: until it is resumed.

        Raises PauseUnreadable, OSError.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return 0.0
        try:
            until = json.loads(content)["until"]
            return None if until is None else max(0.0, (datetime.fromisoformat(until) - now).total_seconds())
        except (ValueError, KeyError, TypeError) as error:
            raise PauseUnreadable(
                f"{self._path} cannot be read ({error}): the node stays paused; `shrk resume` ends that"
            ) from error
