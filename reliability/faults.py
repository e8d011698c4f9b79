"""What strikes a node: eight ways to lose it, or a piece of what it says, and how each is mended again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from enum import StrEnum

from reliability.engine_socket import EngineSocket
from reliability.network import Network, Node
from reliability.waiting import NotInTime, until
from shrk_coordinator.state.lives import EngineLife

#: A position that no answer reaches: the hold is armed, and holds nobody.
NEVER = 1_000_000
#: Ends of its engine after which an agent is started anew: it would wait ever longer before it starts the next one.
ENGINE_ENDS_MAX = 2
#: A link is dialled anew within moments; on a busy machine with a backoff of seconds.
LINKED_SECONDS_MAX = 45.0


class Fault(StrEnum):
    """A closed list, the words of `--case`."""

    KILL_AGENT = "kill-agent"
    KILL_ENGINE = "kill-engine"
    STOP_ENGINE = "stop-engine"
    RESET_LINK = "reset-link"
    BLACK_HOLE = "black-hole"
    BAD_PIECE = "bad-piece"
    REPEATED_PIECE = "repeated-piece"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Victim:
    """A node at the moment before it is struck."""

    node: Node
    life: EngineLife
    engine: EngineSocket
    pids: tuple[int, ...]

    @classmethod
    async def of(cls, node: Node, life: EngineLife, engine: EngineSocket) -> Victim:
        """Raises aiohttp.ClientError or OSError where its agent does not answer."""
        return cls(node, life, engine, await node.engine_pids())


async def strike(fault: Fault, victim: Victim, position: int) -> None:
    """Strike; the engine is held after `position` tokens, and where it can still go on, it does."""
    match fault:
        case Fault.KILL_AGENT:
            victim.node.signal(signal.SIGKILL)
        case Fault.KILL_ENGINE:
            kill(victim.pids[:1], signal.SIGKILL)
        case Fault.STOP_ENGINE:
            kill(victim.pids, signal.SIGSTOP)
        case Fault.RESET_LINK:
            victim.node.line.reset()
            await victim.engine.clear()
        case Fault.BLACK_HOLE:
            victim.node.line.black_hole()
            await victim.engine.clear()
        case Fault.BAD_PIECE:
            await victim.engine.arm("bad-chunk", position, times=1)
            await victim.engine.arm("hang", NEVER)
        case Fault.REPEATED_PIECE:
            await victim.engine.arm("repeat-chunk", position, times=1)
            await victim.engine.arm("hang", NEVER)
        case Fault.DRAIN:
            victim.node.signal(signal.SIGTERM)


async def mend(fault: Fault, victim: Victim, network: Network, model: str) -> None:
    """After the answer: bring the node back. Returns when the coordinator offers nothing of the struck one."""
    node = victim.node
    match fault:
        case Fault.KILL_AGENT | Fault.DRAIN:
            await node.gone()
            await until(lambda: network.serving(model).get(node.name) != victim.life, f"{node.name} is off the list")
            await node.start()
        case Fault.KILL_ENGINE:
            await until(lambda: network.serving(model).get(node.name) != victim.life, f"{node.name} is off the list")
            await _count_engine_end(node)
        case Fault.STOP_ENGINE:
            await _go_on(victim, network, model)
        case Fault.RESET_LINK | Fault.BLACK_HOLE:
            node.line.heal()
            await _link_anew(victim, network, model)
        case Fault.BAD_PIECE | Fault.REPEATED_PIECE:
            await victim.engine.clear()


async def _link_anew(victim: Victim, network: Network, model: str) -> None:
    """Cut the link, whichever it is by now: one that was black may live on, or be about to end."""
    name = victim.node.name
    before = network.serving(model).get(name, victim.life).link
    victim.node.line.reset()

    def linked_anew() -> bool:
        life = network.serving(model).get(name)
        return life is not None and life.link not in (before, victim.life.link)

    await until(linked_anew, f"{name} links anew", LINKED_SECONDS_MAX)


async def _go_on(victim: Victim, network: Network, model: str) -> None:
    """Let a stopped engine go on. Where its agent has given it up already, the agent is started anew as well."""
    kill(victim.pids, signal.SIGCONT)
    await victim.engine.clear()
    if network.serving(model).get(victim.node.name) != victim.life:
        await victim.node.restart()
        return
    # The coordinator mistrusts for a while an engine that stalled; on a new link it begins without a past.
    await _link_anew(victim, network, model)


async def _count_engine_end(node: Node) -> None:
    node.engine_ends += 1
    if node.engine_ends >= ENGINE_ENDS_MAX:
        await node.restart()


def kill(pids: tuple[int, ...], number: int) -> None:
    """Send a signal to those that live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def recover(nodes: list[Node], network: Network, model: str) -> None:
    """After a run that went wrong: begin with new agents on sound lines. Raises NotInTime."""
    for node in nodes:
        node.line.heal()
    await asyncio.gather(*(node.restart() for node in nodes))
    before = network.serving(model)
    with contextlib.suppress(NotInTime):
        await until(lambda: not before.items() & network.serving(model).items(), "the old links are gone", 20.0)
    await network.until_well(model, len(nodes))
