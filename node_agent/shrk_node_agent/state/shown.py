"""An engine as it is shown: to people in the status, to coordinators in a report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shrk_contract.terms import SERVING, EngineReport, State, Status
from shrk_node_agent.state.assignment import TOO_LARGE
from shrk_node_agent.state.engines import RETRY_COMMAND, EngineView

#: As the wire bounds it.
REASON_CHARACTERS_MAX = 2_000
#: Says what fits.
SUGGEST_COMMAND = "shrk models suggest"

_NEXT_ACTION = {
    State.INCOMPATIBLE: "Take it off `models` (shrk set models OTHER,...), or mend what the reason names and try "
    f"again: {RETRY_COMMAND}. For another `source`, start the agent again.",
    State.STARTING: "",
    State.PAUSED: "Nothing: it is loaded as soon as a coordinator wants it here and there is room.",
}


#: What the node as a whole is, from the best of its engines.
_BEST_FIRST = (
    State.ONLINE,
    State.BUSY,
    State.LOADING,
    State.DOWNLOADING,
    State.STARTING,
    State.COOLING,
    State.DRAINING,
    State.PAUSED,
    State.OFF_SCHEDULE,
    State.OFFLINE,
    State.INCOMPATIBLE,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """How it is, why, and what its owner can do."""

    state: State
    reason: str
    next_action: str


def shown(engine: EngineView, node_admits: bool) -> Shown:
    """Where its own GPUs keep it from serving and the node serves, that; else how it is itself."""
    permit = engine.permit
    if node_admits and not permit.admits and permit.state is not None and engine.state in SERVING:
        return Shown(permit.state, permit.reason, permit.next_action)
    if engine.start_at is not None and not permit.admits:
        return Shown(engine.state, permit.reason, permit.next_action)
    if engine.state is State.PAUSED and engine.reason.startswith(TOO_LARGE):
        return Shown(engine.state, engine.reason, f"A smaller model, or another quantisation: {SUGGEST_COMMAND}")
    next_action = permit.next_action if engine.kept else _NEXT_ACTION.get(engine.state, "")
    return Shown(engine.state, engine.reason or engine.detail, next_action)


def best(engines: Iterable[Shown]) -> Shown:
    """What the node as a whole is: the best of its engines, of which there is one at least."""
    return min(engines, key=lambda one: _BEST_FIRST.index(one.state))


def report(engine: EngineView, seen_as: Shown, memory_bytes: int, since_unix_ms: int) -> EngineReport:
    """As coordinators hear of it. `memory_bytes`: what it takes of this machine."""
    slots = engine.slots_allowed
    running = min(engine.in_flight, slots)
    return EngineReport(
        id=engine.id,
        model=engine.model,
        status=Status(
            state=seen_as.state,
            reason=seen_as.reason[:REASON_CHARACTERS_MAX],
            next_action=seen_as.next_action,
            since_unix_ms=since_unix_ms,
        ),
        pin=engine.pin,
        endpoints=engine.endpoints,
        slots=slots,
        running=running,
        waiting=engine.in_flight - running,
        context_tokens=engine.context_tokens,
        progress=engine.progress,
        life=engine.life,
        memory_bytes=memory_bytes,
    )
