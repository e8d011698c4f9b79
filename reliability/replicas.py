"""The reconciler over days of joins, leaves, hours, heat and sick engines: is every model kept at three replicas?"""

from __future__ import annotations

from reliability.results import Row
from reliability.seeds import Program, Simulated, planted_row

PROGRAM = Program(
    "simulation.replicas",
    ("forgets-domain", "drops-before-replacement", "counts-the-sick", "replaces-all-the-sick"),
)


def rows(found: Simulated) -> tuple[Row, ...]:
    """The laws, and the bugs."""
    told = found.figures
    per_hour = told["changes"] / told["node_hours"] if told["node_hours"] else 0.0
    return (
        Row(
            promise="No model has less than three replicas, or as many as there can be, for longer than a load takes",
            tried="the real reconciler on a virtual clock, over hours of joins, leaves, closing windows, heat, failing "
            "loads and engines at which requests fail, drawn from each seed; what is lost without a word is replaced "
            "within a load, what is announced before it goes, and a node is asked for few changes an hour",
            n=found.seeds,
            failures=len(found.violating),
            seen=f"{found.range}: {told['nodes']:,} nodes, {told['causes']:,} causes, {told['announced']:,} losses "
            f"announced in time; {per_hour:.2f} changes a node and hour, at most {told['changes_per_hour_max']} of one "
            "whose loads keep failing",
        ),
        planted_row("Its simulation finds bugs that were planted", found),
    )
