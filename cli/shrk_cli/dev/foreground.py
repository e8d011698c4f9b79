"""Runs a network in the foreground: signals, order of beginning and end, and what is printed when."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrk_cli.dev import progress as showing
from shrk_cli.dev import scripted, statedir
from shrk_cli.dev.engines import Choice, TinyModel
from shrk_cli.dev.network import Network
from shrk_cli.dev.plan import (
    AGENT_DRAIN_SECONDS,
    EngineKind,
    Model,
    Plan,
    SimulatorSpeed,
    default_models,
    node_plans,
)
from shrk_cli.dev.progress import Progress
from shrk_cli.dev.ready import Ready, as_json, count, summary
from shrk_cli.dev.tidying import Tidying

#: The kernel's part of NVIDIA's driver, once it is loaded.
_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options ask for, checked."""

    nodes: int
    choice: Choice
    #: Empty: the default models.
    models: tuple[Model, ...]
    port: int
    state_dir: Path | None
    json: bool
    restart: bool
    speed: SimulatorSpeed
    #: What the nodes' made-up GPUs play; None: they have none.
    scripted_gpu: Path | None = None


class Signals:
    """Stop signals as events: the first asks to drain, the second not to wait."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Also where the shell that started it in the background ignores SIGINT: whoever sends it means it.
            loop.add_signal_handler(number, self._arrived)
        # Under nohup a closed terminal is no reason to stop.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _arrived(self) -> None:
        # What was asked for comes before telling so: nobody may be left to tell.
        if not self.stop.is_set():
            self.stop.set()
            self._say(f"stopping: nodes have {AGENT_DRAIN_SECONDS:g} s to finish; Ctrl-C again stops at once")
        elif not self.now.is_set():
            self.now.set()
            self._say("stopping at once")

    def _hung_up(self) -> None:
        # A terminal that closes sends this up to three times: kernel, shell, and kernel again at the shell's end.
        # That is one wish to stop, and no impatience.
        if not self.stop.is_set():
            self._arrived()


async def run(wish: Wish, environment: Mapping[str, str]) -> None:
    """The whole life of a network; returns after a stop signal. Raises Trouble where it cannot be."""
    progress = showing.make(sys.stderr)
    signals = Signals(progress.say)
    tiny = TinyModel(environment)
    workplace = tiny.workplace() if _needs_building(wish, tiny) else None
    plan = _plan(wish, tiny)
    # Settings of this shell must not leak into the processes: they refuse names they do not know.
    inherited = {name: value for name, value in environment.items() if not name.startswith("SHRK_")}
    inherited["TMPDIR"] = str(plan.temporary_dir)
    lock = statedir.lock(plan.state_dir)
    tidying = await Tidying.start(
        remove=[
            *([plan.state_dir] if plan.temporary else [plan.temporary_dir, plan.coordinator_ready_file]),
            *([workplace] if workplace else []),
        ],
        unsocket=[] if plan.temporary else [plan.state_dir],
        environment=inherited,
        hold=lock,
    )
    try:
        for folder in (plan.logs_dir, plan.temporary_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
        network = Network(plan, inherited, tidying.lifeline, progress)

        async def bring_up() -> Ready:
            progress.say(f"engine {wish.choice.engine.value} ({wish.choice.why})")
            if workplace:
                await tiny.build(workplace, plan.engine_venv, inherited, tidying.lifeline, progress.say)
            await scripted.check(plan, inherited, tidying.lifeline)
            if unused := plan.unused(_has_nvidia()):
                progress.say(unused)
            progress.say(f"starting a coordinator and {count(wish.nodes, 'node')} in {plan.state_dir}")
            return await network.start()

        try:
            await _live(network, bring_up(), wish, plan, progress, signals)
        finally:
            progress.settle()
            await _end(network, signals)
    finally:
        os.close(lock)  # held on by the janitor until all is tidy
        await tidying.finish()


async def _live(
    network: Network,
    bring_up: Coroutine[Any, Any, Ready],
    wish: Wish,
    plan: Plan,
    progress: Progress,
    signals: Signals,
) -> None:
    """From nothing to ready, and on until a stop signal. Raises what makes the network impossible."""
    began = time.monotonic()
    stop = asyncio.create_task(signals.stop.wait())
    starting = asyncio.create_task(bring_up)
    lasting = asyncio.create_task(network.failed())
    try:
        await asyncio.wait([starting, stop], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        ready = starting.result()
        progress.settle()
        print(as_json(ready) if wish.json else summary(ready, plan, time.monotonic() - began), flush=True)
        await asyncio.wait([lasting, stop], return_when=asyncio.FIRST_COMPLETED)
        if lasting.done():
            lasting.result()
    finally:
        await _cancel(starting, stop, lasting)


async def _end(network: Network, signals: Signals) -> None:
    """Stop everything; at once where a second signal asks for that."""
    stopping = asyncio.create_task(network.stop())
    now = asyncio.create_task(signals.now.wait())
    await asyncio.wait([stopping, now], return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        stopping.result()
    else:
        await _cancel(stopping)
        await network.kill()
    await _cancel(now)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _has_nvidia() -> bool:
    return _NVIDIA.exists()


def _needs_building(wish: Wish, tiny: TinyModel) -> bool:
    return not wish.models and wish.choice.engine is EngineKind.VLLM and not tiny.fresh()


def _plan(wish: Wish, tiny: TinyModel) -> Plan:
    state_dir, temporary = statedir.create(wish.state_dir)
    first, others = (wish.models, wish.models) if wish.models else default_models(str(tiny.folder))
    return Plan(
        state_dir=state_dir,
        temporary=temporary,
        engine=wish.choice.engine,
        engine_venv=wish.choice.venv,
        port=wish.port,
        restart=wish.restart,
        speed=wish.speed,
        scripted_gpu=wish.scripted_gpu,
        nodes=node_plans(state_dir, wish.nodes, first, others),
    )
