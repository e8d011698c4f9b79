"""Arithmetic of measuring: percentiles, medians with their spread, and the tick counts of /proc. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity over several runs."""

    median: float
    low: float
    high: float


def figure(values: Sequence[float]) -> Figure:
    """The median of the runs, and how far they lie apart."""
    return Figure(statistics.median(values), min(values), max(values))


def percentile(ascending: Sequence[int], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the sorted values do not exceed; NaN where there are none."""
    if not ascending:
        return math.nan
    return float(ascending[max(0, math.ceil(share * len(ascending)) - 1)])


def cpu_ticks(stat: str) -> int:
    """User and system time, all threads, from the text of /proc/PID/stat."""
    # The name stands in brackets and may hold spaces and brackets itself: count fields behind it.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_kb(status: str) -> int:
    """VmRSS from the text of /proc/PID/status, in KiB. Raises ValueError where there is none."""
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name == "VmRSS":
            return int(rest.split()[0])
    raise ValueError("no VmRSS: the process has ended")


def gauges(exposition: str) -> dict[str, float]:
    """Every sample without labels in Prometheus's text format, by name."""
    samples = {}
    for line in exposition.splitlines():
        if line and not line.startswith("#") and "{" not in line:
            name, _, rest = line.partition(" ")
            samples[name] = float(rest.split()[0])
    return samples


def frames_per_message(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Frames that one gRPC message from a node carried, between two readings of the coordinator's metrics."""
    frames, messages = "shrk_link_frames_received", "shrk_link_messages_received"
    received = after[messages] - before[messages]
    return (after[frames] - before[frames]) / received if received else math.nan
