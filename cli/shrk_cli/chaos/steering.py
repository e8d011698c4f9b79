"""The caller's side of a control socket, and a status as text for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from shrk_cli.chaos.faults import Flow
from shrk_cli.errors import Exit, Trouble

#: Every answer is made from memory.
ANSWER_SECONDS_MAX = 5.0

_BYTES_PER_KBIT = 125


async def ask(
    control: Path, method: str, path: str, body: Mapping[str, object] | None = None, uid: int | None = None
) -> dict[str, Any]:
    """The status that the proxy answers with. `uid` is whose it must be: without it, this process's user's.

    Raises Trouble where there is none, it is somebody else's, or it refuses.
    """
    _check_owner(control, os.geteuid() if uid is None else uid)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(control)), timeout=timeout) as session,
            session.request(method, f"http://proxy{path}", json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
            if response.status == 400 and "error" in answer:
                error = answer["error"]
                raise Trouble(error["what"], remedy=error["remedy"], code=Exit.USAGE)
            response.raise_for_status()
            return answer
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise Trouble(
            f"no chaos proxy answers at {control}",
            why=str(error) or f"it said nothing for {ANSWER_SECONDS_MAX:g} s",
            remedy="start one with `shrk chaos proxy`, or name the socket of the one that runs: --control SOCKET",
        ) from error


def _check_owner(control: Path, uid: int) -> None:
    """In a folder like /tmp anybody may put a socket where ours is looked for."""
    try:
        owner = control.stat().st_uid
    except OSError:
        return  # connecting tells it better
    if owner != uid:
        raise Trouble(
            f"{control} belongs to somebody else",
            why=f"its owner is user {owner}, and you are user {uid}",
            remedy="be that user, or name the socket of your own proxy: --control SOCKET",
        )


def status_text(status: Mapping[str, Any]) -> str:
    """A few lines; the first says whether new connections get through."""
    connections = status["connections"]
    counts = ", ".join(
        f"{connections[name]:,} {name}" for name in ("open", "accepted", "reset", "refused", "unreached")
    )
    return "\n".join(
        [
            f"{status['listen']} → {status['to']}{'; new connections are refused' if status['refuse'] else ''}",
            f"  connections  {counts}",
            f"  up           {_line_text(status['up'])}",
            f"  down         {_line_text(status['down'])}",
        ]
    )


def _line_text(line: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{line[f'{name}_bytes']:,} {name}" for name in ("passed", "dropped", "held"))
    return f"{', '.join(_faults(line)) or 'no faults'}; bytes: {counts}"


def _faults(line: Mapping[str, Any]) -> list[str]:
    words = []
    if line["flow"] == Flow.BLACK_HOLE:
        words.append("black hole")
    if line["flow"] == Flow.FREEZE:
        words.append("frozen")
    if line["delay_ms"] or line["jitter_ms"]:
        jitter = f" to {line['delay_ms'] + line['jitter_ms']:g}" if line["jitter_ms"] else ""
        words.append(f"delay {line['delay_ms']:g}{jitter} ms")
    if line["rate_bytes_per_second"] is not None:
        words.append(f"{line['rate_bytes_per_second'] / _BYTES_PER_KBIT:,g} kbit/s")
    if line["truncate_after_bytes"] is not None:
        words.append(f"reset after {line['truncate_after_bytes']:,} bytes")
    return words
