"""`python -m shrk_node_agent.sensors`: everything that the sensors read on this machine, for a look or a transcript.

It changes nothing. Ends with 0, with 1 where nothing could be read, with 5 where the visible devices do not exist.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from shrk_node_agent.sensors.choose import choose
from shrk_node_agent.sensors.gpu import GpuKind, Gpus, SensorsFailed
from shrk_node_agent.state.devices import GpuReading

#: Enough for a transcript of a long afternoon; whoever wants more has `shrk status --watch`.
POLLS_MAX = 100_000
#: Between two polls: an hour.
INTERVAL_SECONDS_MAX = 3600.0


def _polls(word: str) -> int:
    if not word.isdigit() or not 1 <= int(word) <= POLLS_MAX:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of polls from 1 to {POLLS_MAX}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= INTERVAL_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds from 0 to {INTERVAL_SECONDS_MAX:g}")
    return seconds


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m shrk_node_agent.sensors", description="Print what GPUs tell.")
    parser.add_argument("--gpu", choices=list(GpuKind), default=GpuKind.AUTO, type=str)
    parser.add_argument("--visible-devices", default="", help="indexes or UUIDs, separated by commas; all without it")
    parser.add_argument("--scripted-gpu", type=Path, help="a script, with --gpu scripted")
    parser.add_argument("--polls", default=2, type=_polls, help="the first one also loads the driver; default 2")
    parser.add_argument("--interval", default=1.0, type=_seconds, help="seconds between polls; default 1")
    parser.add_argument("--json", action="store_true", help="one JSON document a poll, then one of the capabilities")
    return parser.parse_args(words)


async def _print_all(gpus: Gpus, polls: int, interval: float, as_json: bool) -> None:
    clock = asyncio.get_running_loop().time
    for poll in range(polls):
        if poll:
            await asyncio.sleep(interval)
        begun = clock()
        readings = await gpus.read()
        took_ms = (clock() - begun) * 1000
        if as_json:
            print(json.dumps({"schema": 1, "poll": poll, "took_ms": took_ms, "gpus": list(map(_document, readings))}))
        else:
            print(f"poll {poll + 1} took {took_ms:.1f} ms, {len(readings)} GPU{'' if len(readings) == 1 else 's'}")
            for reading in readings:
                print("\n".join(_lines(reading)))
    capabilities = gpus.capabilities().document()
    print(json.dumps({"schema": 1, "capabilities": capabilities}, indent=None if as_json else 2, ensure_ascii=False))


def _document(reading: GpuReading) -> dict[str, object]:
    return dataclasses.asdict(reading)


def _lines(reading: GpuReading) -> list[str]:
    if reading.lost:
        return [f"GPU {reading.index}  {reading.name}  {reading.uuid}", "  lost: reset it, or restart the machine"]
    free = _told(reading.memory_free_bytes, 1e9)
    processes = "not told" if reading.processes is None else f"{len(reading.processes)}"
    return [
        f"GPU {reading.index}  {reading.name}  {reading.uuid}",
        f"  temperature   {_told(reading.temperature_celsius)} °C",
        f"  power         {_told(reading.power_watts)} W, limit {_told(reading.power_limit_watts)} W",
        f"  memory        {_told(reading.memory_bytes or None, 1e9)} GB, {free} GB free",
        f"  utilisation   {_told(reading.utilisation, 0.01)} %",
        f"  held down by  {', '.join(reading.throttle) or 'nothing'}",
        f"  processes     {processes}",
        *(f"    pid {process.pid}  {_told(process.memory_bytes, 1e9)} GB" for process in reading.processes or ()),
    ]


def _told(value: float | None, unit: float = 1.0) -> str:
    return "unknown" if value is None else f"{value / unit:.1f}"


async def _run(words: Sequence[str]) -> int:
    given = _arguments(words)
    visible = tuple(word.strip() for word in given.visible_devices.split(",") if word.strip())
    try:
        gpus = choose(given.gpu, visible, given.scripted_gpu, clock=asyncio.get_running_loop().time)
        try:
            await _print_all(gpus, given.polls, given.interval, given.json)
        finally:
            await gpus.close()
    except SensorsFailed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return failed.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(sys.argv[1:])))
