"""What the command says when it cannot do what was asked: what, why, and the next command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `shrk` command. A closed list: scripts depend on it."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CONFIG_INVALID = 5


class Trouble(Exception):
    """Ends the command with a message for a person.

    `what` went wrong, `why` (may span lines, such as an engine's last words), and the `remedy`: the
    next command or setting to try.
    """

    def __init__(self, what: str, *, why: str = "", remedy: str = "", code: Exit = Exit.ERROR) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy
        self.code = code

    def __str__(self) -> str:
        lines = [f"shrk: {self.what}"]
        if self.why:
            lines += [f"  {line}" for line in self.why.splitlines()]
        if self.remedy:
            lines.append(f"  → {self.remedy}")
        return "\n".join(lines)
