"""What the agent tells people about itself, as one document: the control socket serves it, commands print it."""

from __future__ import annotations

import os
from typing import Any

from shrk_node_agent.driver import Driver
from shrk_node_agent.link.dial import LinkState, LinkStatus

#: Changes only when a field changes its meaning or goes away.
SCHEMA = 1


def document(driver: Driver, node_id: str, name: str, link: LinkStatus | None) -> dict[str, Any]:
    """The whole status. Times in seconds."""
    state, reason = driver.state.status()
    now = driver.now()
    return {
        "schema": SCHEMA,
        "revision": driver.state.revision,
        "pid": os.getpid(),
        "node_id": node_id,
        "name": name,
        "state": str(state),
        "reason": reason,
        "link": str(link.state if link else LinkState.CONNECTING),
        "link_reason": link.reason if link else "",
        "engines": [
            {
                "id": engine.id,
                "model": engine.model,
                "state": str(engine.state),
                "reason": engine.reason,
                "detail": engine.detail,
                "progress": engine.progress,
                "elapsed_seconds": round(now - engine.since, 1),
                "in_flight": engine.in_flight,
                "slots": engine.slots,
                "pids": driver.processes[engine.id].pids() if engine.id in driver.processes else [],
                "tail": driver.tails.get(engine.id, ()),
            }
            for engine in driver.state.engines.values()
        ],
    }
