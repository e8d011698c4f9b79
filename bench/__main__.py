"""`python -m bench`: measure the coordinator with 1, 8 and 32 mock agents, and print a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import report
from bench.figures import Figure, figure
from bench.network import ROOT, BenchFailed, Target, network, straight
from bench.scenarios import ALONE_STREAMS, USUAL, Scenario

#: A medley of noise hits single runs; three give a median and show their spread.
RUNS = 3
#: More mock agents than this and their one process is what is measured.
AGENTS_MAX = 256

Runs = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code is 1 where an answer was not whole or a process did not start."""
    options = _parser().parse_args(arguments)
    scenarios = (*USUAL, ALONE_STREAMS) if options.alone else USUAL
    runs = 1 if options.quick else RUNS
    began = time.monotonic()
    by_agents: dict[int, Runs] = {}
    try:
        with straight() as target:
            without = _measure(target, scenarios, runs, options.quick, "no gateway")
        for agents in options.agents:
            _say(f"{agents} agents: enrolling and linking")
            with network(agents) as target:
                by_agents[agents] = _measure(target, scenarios, runs, options.quick, f"{agents} agents")
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    base = _figures(without)
    measured = {agents: _figures(values) for agents, values in by_agents.items()}
    machine = _machine()
    print(f"{machine['revision']}, {machine['cpus']} CPUs, Python {machine['python']}, {runs} run(s) of each,", end=" ")
    print(f"{time.monotonic() - began:.0f} s in all" + (": quick, so rough" if options.quick else ""))
    print(report.table(base, measured))
    for warning in report.warnings(measured):
        print(f"note: {warning}")
    if options.json is not None:
        document = {
            "schema": 1,
            "machine": machine,
            "quick": options.quick,
            "no_gateway": _document(base, without),
            "by_agents": {str(agents): _document(measured[agents], by_agents[agents]) for agents in by_agents},
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each: under 90 s, rough figures")
    parser.add_argument("--agents", type=_counts, default=[1, 8, 32], metavar="N,N,...", help="default: 1,8,32")
    parser.add_argument("--alone", action="store_true", help="also streams that tick each alone: the worst case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures there")
    return parser


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= AGENTS_MAX for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1 to {AGENTS_MAX}, such as 1,8,32")
    return counts


def _measure(target: Target, scenarios: Sequence[Scenario], runs: int, quick: bool, name: str) -> Runs:
    """Every scenario in turn, as often as asked: what drifts meets all of them."""
    found: Runs = defaultdict(list)
    for run in range(runs):
        for scenario in scenarios:
            _say(f"{name}: {scenario.name}, run {run + 1} of {runs}")
            for key, value in scenario.run(target, quick).items():
                found[key].append(value)
    return found


def _figures(runs: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    return {key: figure(values) for key, values in runs.items()}


def _document(figures: Mapping[str, Figure], runs: Mapping[str, Sequence[float]]) -> dict[str, object]:
    return {key: asdict(figures[key]) | {"runs": runs[key]} for key in runs}


def _machine() -> dict[str, object]:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "revision": described.stdout.strip() or "no git",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "unix_time": int(time.time()),
    }


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


sys.exit(main())
