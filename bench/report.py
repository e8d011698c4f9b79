"""The table for people. Nothing in it is typed by hand except what the prototype once measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.figures import Figure

#: The prototype of this link (no keys, no checks, no metrics) with the same load on a machine of two cores.
PROTOTYPE: Mapping[str, Mapping[int, float]] = {
    "paced.cpu_seconds_per_1m_chunks": {1: 12.0, 8: 19.0, 32: 31.0},
    "alone.cpu_seconds_per_1m_chunks": {1: 21.0, 8: 36.0, 32: 48.0},
    "requests.cpu_seconds_per_1k_requests": {1: 0.049, 8: 0.084},
    "requests.requests_per_second": {1: 20_600.0, 8: 10_100.0},
}
#: A generator or engine busier than this was itself what limited a figure.
BUSY_CORES = 0.9


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity. `added` tells that the figure without a gateway is taken off."""

    key: str
    label: str
    digits: int
    added: bool = False


ROWS = (
    Row("requests.requests_per_second", "requests/s, 64 at a time", 0),
    Row("requests.cpu_seconds_per_1k_requests", "CPU s per 1,000 requests", 3),
    Row("latency.p50_ms", "added latency ms, one at a time, p50", 2, added=True),
    Row("latency.p99_ms", "added latency ms, one at a time, p99", 2, added=True),
    Row("paced.chunks_per_second", "256 paced streams: chunks/s", 0),
    Row("paced.delivered_share", "  delivered of offered", 3),
    Row("paced.cpu_seconds_per_1m_chunks", "  CPU s per 1M chunks", 1),
    Row("paced.frames_per_message", "  frames per message", 1),
    Row("paced.first_token_added_p50_ms", "  first token added ms, p50", 2),
    Row("paced.first_token_added_p99_ms", "  first token added ms, p99", 2),
    Row("paced.gap_added_p99_ms", "  gap added ms, p99", 2),
    Row("paced.memory_mb", "  memory MB", 0),
    Row("burst.chunks_per_second", "64 unpaced streams: chunks/s", 0),
    Row("burst.cpu_seconds_per_1m_chunks", "  CPU s per 1M chunks", 1),
    Row("alone.cpu_seconds_per_1m_chunks", "256 streams ticking alone: CPU s per 1M chunks", 1),
    Row("alone.frames_per_message", "  frames per message", 1),
    Row("alone.delivered_share", "  delivered of offered", 3),
    Row("alone.first_token_added_p99_ms", "  first token added ms, p99", 2),
    Row("alone.gap_added_p99_ms", "  gap added ms, p99", 2),
)

Measured = Mapping[str, Figure]


def table(straight: Measured, by_agents: Mapping[int, Measured]) -> str:
    """Rows of quantities, a column without a gateway and one per number of agents: median (lowest to highest)."""
    lines = [["", "no gateway", *(f"{agents} agent{'s' * (agents > 1)}" for agents in by_agents)]]
    for row in ROWS:
        if not any(row.key in measured for measured in by_agents.values()):
            continue
        base = straight.get(row.key)
        taken_off = base.median if row.added and base else 0.0
        cells = [_cell(measured.get(row.key), row.digits, taken_off) for measured in by_agents.values()]
        lines.append([row.label, _cell(base, row.digits, 0.0), *cells])
        if row.key in PROTOTYPE:
            known = PROTOTYPE[row.key]
            figures = [f"{known[a]:,.{row.digits}f}" if a in known else "-" for a in by_agents]
            lines.append(["  (prototype)", "", *figures])
    return _aligned(lines)


def _cell(figure: Figure | None, digits: int, taken_off: float) -> str:
    if figure is None or math.isnan(figure.median):
        return "-"
    text = f"{figure.median - taken_off:,.{digits}f}"
    if figure.low == figure.high:
        return text
    return f"{text} ({figure.low - taken_off:,.{digits}f} to {figure.high - taken_off:,.{digits}f})"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def warnings(by_agents: Mapping[int, Measured]) -> list[str]:
    """Where the bench itself was the bottleneck, so that wall figures say little. CPU seconds still hold."""
    found = []
    for agents, measured in by_agents.items():
        for key, figure in measured.items():
            scenario, _, name = key.partition(".")
            if name in ("cores_generator", "cores_nodes") and figure.median > BUSY_CORES:
                who = name.removeprefix("cores_")
                found.append(f"{scenario}, {agents} agents: the {who} used {figure.median:.2f} of a core")
    return found
