"""Where and how a request goes on: from the beginning, by token ids, or by a replay that is verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.state.attempts import Request
from shrk_coordinator.state.placement import NotThatKind, Nowhere, Placed, Wish, place
from shrk_coordinator.state.roster import EngineLife, Roster

#: Ends of an attempt that say nothing against the request, and after which a node may be back in a moment.
LOSSES = frozenset(
    {
        "node_lost",
        "node_silent",
        "node_stalled",
        "node_timeout",
        "node_draining",
        "node_rejected",
        "engine_lost",
        "engine_hung",
        "engine_aborted",
    }
)
#: An engine that was left while it still lived (busy, stalled, silent) is not asked again before this, and then only
#: where there is no other.
LEFT_SECONDS = 1.0


def choose(roster: Roster, request: Request, now: float) -> tuple[Placed | NotThatKind | Nowhere, ResumeMethod | None]:
    """The node to ask next, and how it is to go on.

    One that is well goes before one that has stalled; what was delivered goes on by ids on an equal engine; else it is
    replayed, on an equal engine where there is one.
    """
    new = Wish(request.model, request.endpoint, request.tried | request.left.keys())
    again = replace(
        new, tried=request.tried.union(left for left, at in request.left.items() if now - at < LEFT_SECONDS)
    )
    # Before anything was lost, a refusal by all is an answer; afterwards any node is better than none.
    wishes = (new, again) if request.delivered or request.failures else (new,)
    for wish in wishes:
        for well in (True, False):
            for each, method in _ways(request, replace(wish, well=well)):
                if isinstance(placed := place(roster, each), Placed):
                    return placed, method
    return place(roster, new), None


def choose_elsewhere(roster: Roster, request: Request, life: EngineLife) -> tuple[Placed, ResumeMethod | None] | None:
    """A node that is well, to which a request may be moved while this engine may still finish it; None without one."""
    wish = Wish(request.model, request.endpoint, request.tried | request.left.keys() | {life}, well=True)
    for each, method in _ways(request, wish):
        if isinstance(placed := place(roster, each), Placed):
            return placed, method
    return None


def _ways(request: Request, wish: Wish) -> Iterator[tuple[Wish, ResumeMethod | None]]:
    """How a request may go on, best first."""
    if not request.delivered:
        yield wish, None
        return
    equal = replace(wish, pin=request.pin)
    yield equal, ResumeMethod.BY_IDS if request.by_ids else ResumeMethod.REPLAY
    yield wish, ResumeMethod.REPLAY
