"""What the agent tells people about itself, as one document: the control socket serves it, commands print it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from shrk_node_agent.driver import Driver
from shrk_node_agent.link.dial import LinkState, LinkStatus
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.permit import Permit
from shrk_node_agent.time_zone import in_force

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
        "since_seconds": round(now - driver.state.since, 1),
        "reason": reason,
        "next_action": driver.state.next_action(),
        "gpus": [_gpu(driver, reading) for reading in driver.state.terms.readings],
        "paused": _paused(driver, now),
        "health": [{"what": what, "next": ""} for what in _beside(driver.state.permit)],
        "totals": {"requests": driver.totals.requests, "tokens": driver.totals.tokens},
        "link": str(link.state if link else LinkState.CONNECTING),
        "link_reason": link.reason if link else "",
        "engines": [
            {
                "id": engine.id,
                "model": engine.model,
                "source": driver.source(engine.id),
                "state": str(shown.state),
                "reason": shown.reason,
                "next_action": shown.next_action,
                "detail": engine.detail,
                "gpus": driver.state.gpus_of(engine),
                "progress": engine.progress,
                "elapsed_seconds": round(now - driver.state.since_of(engine), 1),
                "in_flight": engine.in_flight,
                "slots": engine.slots,
                "pids": driver.processes[engine.id].pids() if engine.id in driver.processes else [],
                "tail": driver.tails.get(engine.id, ()),
            }
            for engine in driver.state.engines.values()
            for shown in (driver.state.shown(engine),)
        ],
    }


def _beside(permit: Permit) -> Iterator[str]:
    """What holds besides the reason of its state: what it serves with less, where it serves."""
    if permit.state is None and permit.reason:
        yield permit.reason
    yield from permit.also


def schedule(driver: Driver, text: str, zone: str) -> dict[str, Any]:
    """The owner's hours, and how they stand."""
    opening = driver.state.terms.opening
    told = in_force(zone, driver.state.terms.wanted.zone)
    return {
        "text": text,
        "zone": told.name,
        "zone_why": told.why,
        "open": opening.open,
        "closes_in_seconds": opening.closes_in,
        "opens_in_seconds": opening.opens_in,
    }


def _gpu(driver: Driver, reading: GpuReading) -> dict[str, Any]:
    heat = driver.state.terms.heats[reading.uuid]
    rung = heat.view.rung
    return {
        "index": reading.index,
        "uuid": reading.uuid,
        "name": reading.name,
        "temperature_celsius": reading.temperature_celsius,
        "cap_celsius": heat.cap,
        "power_watts": reading.power_watts,
        "memory_bytes": reading.memory_bytes,
        "memory_free_bytes": reading.memory_free_bytes,
        "utilisation": reading.utilisation,
        "rung": rung.name.lower().replace("_", " ") if rung else "",
        "lost": reading.lost,
        "throttle": list(reading.throttle),
    }


def _paused(driver: Driver, now: float) -> dict[str, Any] | None:
    pause = driver.state.terms.pause
    if pause is None:
        return None
    return {"until_seconds": None if pause.until is None else round(pause.until - now, 1)}
