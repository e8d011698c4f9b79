"""Many agents in one process: mock nodes, whose dialler, session and backoff are the agent's own.

A program of its own: it reads one JSON line (`Wish`) from stdin, enrols, dials, and holds the links. For each further
line it prints one JSON line (`Told`); it ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
import uvloop

from bench.engine import WHOLE
from bench.mock_node import MockNode, Wish, enrol_all
from shrk_contract.service import running
from shrk_node_agent.link.dial import LinkState, LinkStatus

SLOTS = 4


@dataclass(slots=True)
class Told:
    """What became of the agents since the last question."""

    #: Linked now.
    linked: int = 0
    #: When each link was welcomed; monotonic seconds, which all processes of a machine share.
    welcomed_at: list[float] = field(default_factory=list)
    #: Dials that came to nothing, links that broke off, and refusals by word.
    failed: int = 0
    lost: int = 0
    refused: list[str] = field(default_factory=list)

    def changed(self, was_linked: bool, status: LinkStatus) -> None:
        """Count what became of one agent's link."""
        if status.state is LinkState.CONNECTED:
            self.welcomed_at.append(time.monotonic())
        elif was_linked:
            self.lost += 1
        elif status.state is LinkState.REFUSED:
            self.refused.append(status.reason)
        else:
            self.failed += 1


async def serve(wish: Wish) -> None:
    """Enrol all, dial, and tell what is asked until stdin ends."""
    directory, told = Path(wish.directory), Told()
    count = len(wish.join_tokens)
    agents = [MockNode(directory, f"agent-{i}", (WHOLE,), SLOTS, changed=told.changed) for i in range(count)]
    await enrol_all(agents, wish)
    print(json.dumps("enrolled"), flush=True)

    async def all_run() -> None:
        await asyncio.gather(*(agent.run() for agent in agents))

    async with running(all_run(), "agents"):
        while await asyncio.to_thread(sys.stdin.readline):
            told.linked = sum(agent.linked.is_set() for agent in agents)
            print(json.dumps(asdict(told)), flush=True)
            told.linked, told.failed, told.lost = 0, 0, 0
            told.welcomed_at.clear()
            told.refused.clear()


if __name__ == "__main__":
    # What 2,000 agents say of a lost link, each would say on a machine of its own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    uvloop.run(serve(Wish(**json.loads(sys.stdin.readline()))))
