"""The whole cluster on a virtual clock: every request ends once, whatever breaks."""

from __future__ import annotations

from reliability.results import Row
from reliability.seeds import Program, Simulated, planted_row

PROGRAM = Program("simulation", ("loser-never-released", "stale-frame-accepted", "finish-twice"))


def rows(found: Simulated) -> tuple[Row, ...]:
    """The laws, and the bugs."""
    told = found.figures
    return (
        Row(
            promise="Whatever breaks and whenever, every request ends exactly once, and nothing is lost or told twice",
            tried="the real state machines, cursor and relay on a virtual clock, with faults, callers and networks "
            "drawn from each seed; the laws are checked at every step",
            n=found.seeds,
            failures=len(found.violating),
            seen=f"{found.range}: {told['requests']:,} requests, {told['faults']:,} faults, "
            f"{told['continuations']:,} continuations ({told['by_ids']:,} by ids); {told['errors']:,} requests ended "
            "in an error that their caller was told",
        ),
        planted_row("The simulation finds bugs that were planted", found),
    )
