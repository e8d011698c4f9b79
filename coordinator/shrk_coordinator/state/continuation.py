"""Where and how a request goes on: from the beginning, by token ids, or by a replay that is verified."""

from __future__ import annotations

from collections.abc import Collection
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


def choose(
    roster: Roster, request: Request, also_tried: Collection[EngineLife] = ()
) -> tuple[Placed | NotThatKind | Nowhere, ResumeMethod | None]:
    """The node to ask next, and how it is to go on.

    What was delivered goes on by ids on an equal engine; else it is replayed, on an equal engine where there is one.
    """
    tried = request.tried.union(also_tried) if also_tried else request.tried
    wish = Wish(request.model, request.endpoint, tried)
    if not request.delivered:
        return place(roster, wish), None
    equal = place(roster, replace(wish, pin=request.pin))
    if isinstance(equal, Placed):
        return equal, ResumeMethod.BY_IDS if request.by_ids else ResumeMethod.REPLAY
    return place(roster, wish), ResumeMethod.REPLAY
