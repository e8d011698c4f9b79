"""What can be told of an agent that does not run: why, as far as anything on this machine knows, and what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrk_node_agent.commands import service
from shrk_node_agent.commands.phrases import printable

#: A traceback's or a refusal's last lines; more is for `shrk logs`.
LINES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Absence:
    """Why no agent answers. `reason` may span lines."""

    state_dir: str
    reason: str
    service: str
    next_action: str

    def document(self) -> dict[str, Any]:
        """For programs: the words of a status document, as far as they apply."""
        return {
            "schema": 1,
            "running": False,
            "state": "offline",
            "state_dir": self.state_dir,
            "reason": self.reason,
            "service": self.service,
            "next_action": self.next_action,
        }

    def text(self) -> str:
        """For people."""
        lines = [f"● shrk  NOT RUNNING   {self.state_dir}"]
        if self.service:
            lines.append(f"  {service.UNIT}: {self.service}")
        if self.reason:
            lines += ["  It said last:", *(f"  | {line}" for line in self.reason.splitlines())]
        return "\n".join([*lines, f"  -> {self.next_action}"])


#: Of a line for machines: what is told in a place of its own.
_OWN_PLACE = frozenset({"event", "timestamp", "level", "exception"})


def absence(state_dir: Path, flag: Path | None) -> Absence:
    """What is known. `flag`: the folder as it was named for this call."""
    kept_by = service.keeper(flag)
    words = service.last_words(state_dir, kept_by, LINES_SHOWN)
    state = kept_by.state() if isinstance(kept_by, service.Systemd) else ""
    option = f" --state-dir {flag}" if flag else ""
    return Absence(str(state_dir), "\n".join(map(said, words)), state, f"shrk start{option}")


def said(line: str) -> str:
    """A line of the agent's log as a person reads it: those for machines are JSON."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or "event" not in entry:
        return printable(line)
    rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in _OWN_PLACE)
    words = (str(entry.get("timestamp", ""))[:19], str(entry.get("level", "")), str(entry["event"]), rest)
    traceback = str(entry.get("exception", "")).splitlines()
    return "\n".join(map(printable, (" ".join(word for word in words if word), *traceback)))
