"""What was counted, as values and as the JSON file from which the page is written. Pure but for reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reliability.figures import Gaps

#: Changes when a field changes its meaning.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One promise, and how it fared."""

    promise: str
    #: How it is tried, in a sentence.
    tried: str
    n: int
    failures: int
    gaps: Gaps | None = None
    #: What else was counted, in words.
    seen: str = ""
    #: A promise; False for a rate that is published as it is.
    hard: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """What was measured, when that was written, and on how large a machine."""

    #: As `git describe --always` names it, with "-dirty" where files were changed since.
    commit: str
    #: Of the commit, YYYY-MM-DD.
    date: str
    #: Of the machine.
    cores: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One experiment's result."""

    experiment: str
    seed: int
    seconds: float
    origin: Origin
    rows: tuple[Row, ...]
    #: One line for each failure: what went wrong, and the command that tries it again.
    failed: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Tries of promises."""
        return sum(row.n for row in self.rows if row.hard)

    @property
    def failures(self) -> int:
        """Promises that were not kept."""
        return sum(row.failures for row in self.rows if row.hard)


def document(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """All outcomes as JSON has them."""
    return {"schema": SCHEMA, "experiments": {name: asdict(outcome) for name, outcome in outcomes.items()}}


def write(path: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Replace the file."""
    path.write_text(json.dumps(document(outcomes), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Outcome]:
    """Earlier outcomes by experiment; none where there is no file. Raises ValueError for one of another schema."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {found.get('schema')!r} is not {SCHEMA}; measure all experiments anew")
    return {name: _outcome(fields) for name, fields in found["experiments"].items()}


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    rows: Sequence[Mapping[str, Any]] = fields["rows"]
    return Outcome(
        experiment=fields["experiment"],
        seed=fields["seed"],
        seconds=fields["seconds"],
        origin=Origin(**fields["origin"]),
        rows=tuple(Row(**{**row, "gaps": Gaps(**row["gaps"]) if row["gaps"] else None}) for row in rows),
        failed=tuple(fields["failed"]),
    )
