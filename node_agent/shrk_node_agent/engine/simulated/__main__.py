"""`python -m shrk_node_agent.engine.simulated`: flags, signals, and the process's own end."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

import uvloop

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated.faults import QUERY_OF_DEATH, Fault, Kind
from shrk_node_agent.engine.simulated.sequences import Pace
from shrk_node_agent.engine.simulated.server import Plan, serving


def parse(arguments: list[str]) -> tuple[Plan, Path]:
    """The engine to simulate and its socket; exits with status 2 and a sentence where a flag is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m shrk_node_agent.engine.simulated",
        description="Serves vLLM's HTTP on a unix socket, without a model.",
    )
    parser.add_argument("--uds", type=Path, required=True, metavar="PATH", help="the unix socket to serve on")
    parser.add_argument("--model", required=True, metavar="NAME", help="the name callers use")
    parser.add_argument("--task", choices=list(Task), default=Task.GENERATE, help="default: generate")
    parser.add_argument("--slots", type=_count, default=16, metavar="N", help="answers at once; default: 16")
    parser.add_argument(
        "--context-tokens", type=_count, default=65_536, metavar="N", help="prompt and answer; default: 65536"
    )
    for flag, text in (
        ("--first-token-ms", "before an answer's first token"),
        ("--tokens-per-second", "of each answer; 0, the default, is as fast as possible"),
        ("--jitter-ms", "added to each step, at random"),
    ):
        parser.add_argument(flag, type=_amount, default=0.0, metavar="N", help=text)
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND[@TOKEN][=VALUE]",
        help=f"go wrong when an answer has TOKEN tokens; KIND is one of {', '.join(Kind)}; VALUE is by what factor "
        f"to be slow, from 1, or which text in a prompt is the query of death (without one: {QUERY_OF_DEATH})",
    )
    given = parser.parse_args(arguments)
    pace = Pace(given.first_token_ms / 1000, given.tokens_per_second, given.jitter_ms / 1000)
    plan = Plan(given.model, Task(given.task), given.slots, given.context_tokens, pace, tuple(given.fault))
    return plan, given.uds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return amount


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def crash() -> None:
    """Die as an engine does whose native code fails: at once, without a word."""
    # It was asked for: nobody will look into the memory it had, which takes the kernel a while to write.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


async def serve(plan: Plan, socket: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(plan, socket, clock=time.time, crash=crash):
        print(f"simulated engine: {plan.model} on {socket}", flush=True)
        await stop.wait()


def main() -> int:
    """The program."""
    plan, socket = parse(sys.argv[1:])
    try:
        uvloop.run(serve(plan, socket))
    except OSError as error:
        print(f"simulated engine: cannot serve on {socket}: {error}; give another --uds", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
