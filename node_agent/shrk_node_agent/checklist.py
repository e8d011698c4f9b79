"""A checklist as people and programs read it: what was looked at, what was found, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

#: Changes only when a field changes its meaning or goes away.
SCHEMA = 1


class Mark(StrEnum):
    """How one line ended. A closed list."""

    PASSED = "passed"
    FAILED = "failed"
    #: Worth knowing; nothing is wrong.
    NOTED = "noted"
    #: Not looked at, and why.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at."""

    name: str
    mark: Mark
    #: What was found.
    reason: str = ""
    #: What to do; empty: nothing.
    next_action: str = ""


#: Lines of the coordinator that tell why nothing comes, though nothing is wrong with the node.
_NOTHING_WRONG = frozenset({"demand", "room"})


def of_verdict(checks: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The coordinator's checklist, as `GET /why` gives it."""
    return [
        Line(check["name"], _mark(check["name"], passed=check["passed"]), check["reason"], check["next_action"])
        for check in checks
    ]


def _mark(name: str, *, passed: bool) -> Mark:
    if passed:
        return Mark.PASSED
    return Mark.NOTED if name in _NOTHING_WRONG else Mark.FAILED


def failed(lines: Iterable[Line]) -> bool:
    """Whether any line failed."""
    return any(line.mark is Mark.FAILED for line in lines)


def text(lines: Sequence[Line]) -> str:
    """One line each: `failed   temperature   71 °C, 70 °C are allowed → more air, or a higher temp_max`."""
    width = max((len(line.name) for line in lines), default=0)
    rows = []
    for line in lines:
        action = f" → {line.next_action}" if line.next_action and line.mark is not Mark.PASSED else ""
        rows.append(f"  {line.mark:<8} {line.name:<{width}}  {printable(line.reason)}{printable(action)}".rstrip())
    return "\n".join(rows)


def document(lines: Iterable[Line], **more: object) -> str:
    """The same as JSON, for programs."""
    return json.dumps({"schema": SCHEMA, **more, "checks": [asdict(line) for line in lines]}, ensure_ascii=False)


def printable(words: str) -> str:
    """A stranger's words as a line on a screen: nothing in them moves a cursor or begins another line."""
    return "".join(c if c.isprintable() else " " for c in words)
