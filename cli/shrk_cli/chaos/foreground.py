"""Runs one proxy and its control socket in the foreground, until a stop signal."""

from __future__ import annotations

import asyncio
import contextlib
import json as encoding
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrk_cli.chaos.address import Address
from shrk_cli.chaos.control import control_socket, status
from shrk_cli.chaos.line import Dice
from shrk_cli.chaos.proxy import ChaosProxy
from shrk_cli.chaos.steering import status_text
from shrk_cli.errors import Trouble


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of `shrk chaos proxy` ask for."""

    listen: Address
    to: Address
    control: Path
    #: Settings of both lines, by name.
    faults: Mapping[str, object]
    json: bool
    #: What a suggested command needs to find the control socket: ` --control SOCKET`, or nothing.
    option: str


async def run(wish: Wish, dice: Dice) -> None:
    """The whole life of a proxy; returns after a stop signal. Raises Trouble where it cannot be."""
    stop = _stop_signals()
    async with contextlib.AsyncExitStack() as life:
        try:
            proxy = await life.enter_async_context(ChaosProxy.open(to=wish.to, listen=wish.listen, dice=dice))
        except OSError as error:
            raise Trouble(
                f"--listen {wish.listen} cannot be used",
                why=str(error),
                remedy="choose another with --listen HOST:PORT; port 0 takes any",
            ) from error
        proxy.set(**wish.faults)
        await life.enter_async_context(control_socket(proxy, wish.control))
        ready = status(proxy)
        print(encoding.dumps({**ready, "control": str(wish.control)}) if wish.json else _told(ready, wish), flush=True)
        stopped = asyncio.create_task(stop.wait())
        ends: list[asyncio.Future[Any]] = [stopped, proxy.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


def option_for(control: Path) -> str:
    """` --control SOCKET`, as a shell takes it."""
    return f" --control {shlex.quote(str(control))}"


def _told(ready: Mapping[str, object], wish: Wish) -> str:
    return (
        f"{status_text(ready)}\n\nSteer it from another terminal; Ctrl-C here ends it, and resets what it carries:\n"
        f"  shrk chaos set{wish.option} --delay-ms 300\n"
        f"  shrk chaos cut{wish.option} black-hole\n"
        f"  shrk chaos heal{wish.option}"
    )


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # Under nohup a closed terminal is no reason to stop.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop
