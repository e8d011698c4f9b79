"""What a request that finds no node may hope for: how long it would wait for its turn, and when to come again."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from shrk_contract.terms import State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.continuation import first_wish
from shrk_coordinator.state.nowhere import NotThatKind, Nowhere
from shrk_coordinator.state.placement import Reason, why_nowhere
from shrk_coordinator.state.request import Request
from shrk_coordinator.state.roster import COMING, Roster
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, Waiting

#: What a caller is told to wait, in seconds, where nothing better is known.
RETRY_AFTER_SECONDS = 2.0
#: States of engines that are being loaded, or are as soon as somebody asks.
_LOADABLE = frozenset({State.PAUSED, *COMING})


def why_not_now(now: float, roster: Roster, request: Request) -> NotThatKind | Nowhere:
    """How many nodes cannot be asked, and why; those that would not take it are busy."""
    nowhere = why_nowhere(roster, replace(first_wish(request, now), tried=request.tried))
    if isinstance(nowhere, NotThatKind) or not request.left:
        return nowhere
    counts = Counter(dict(nowhere.counts)) + Counter({str(Reason.FULL): len(request.left)})
    return replace(nowhere, counts=tuple(sorted(counts.items())))


def others_may(now: float, roster: Roster, waiting: Waiting, request: Request) -> bool:
    """Whether another node than those that failed it is due back, or busy and likely to have a place in time."""
    if roster.due_back(now, request.model):
        return True
    nowhere = why_not_now(now, roster, request)
    if isinstance(nowhere, NotThatKind) or Reason.FULL not in dict(nowhere.counts):
        return False
    return seconds_until_turn(roster, waiting, request.model, nowhere) <= WAIT_SECONDS_MAX


def seconds_until_turn(roster: Roster, waiting: Waiting, model: str, nowhere: Nowhere) -> float:
    """Until one more would have a place behind those that wait; 0 where no place ever came free.

    Only nodes that are merely busy give places: of those that were looked at, their share.
    """
    served = roster.served(model)
    freed = served.freed_per_second * nowhere.busy_share if served else 0.0
    return (waiting.new(model) + 1) / freed if freed > 0 else 0.0


def retry_after(now: float, roster: Roster, waiting: Waiting, model: str, nowhere: Nowhere) -> int:
    """When whoever is refused may come again, in whole seconds from now."""
    reasons = dict(nowhere.counts)
    if Reason.FULL in reasons:
        seconds = seconds_until_turn(roster, waiting, model, nowhere) - WAIT_SECONDS_MAX
        return math.ceil(max(RETRY_AFTER_SECONDS, seconds))
    if Reason.EJECTED in reasons:
        return max(1, math.ceil(roster.seconds_to_probe(now, model)))
    return math.ceil(RETRY_AFTER_SECONDS)


def no_node(now: float, roster: Roster, waiting: Waiting, model: str, nowhere: Nowhere) -> do.NoNode:
    """Nobody can be asked now. Where nobody has the model loaded, its caller is to come back when somebody should have,
    and not sooner."""
    counts, served = nowhere.counts, roster.served(model)
    seconds = retry_after(now, roster, waiting, model, nowhere)
    if served is None or served.offers or not dict(counts).keys() & _LOADABLE:
        return do.NoNode(model, counts, seconds)
    left = served.seconds_to_load(now)
    if left < 0.0:
        # It takes longer than it usually does, and nobody knows how long: the later, the less often.
        return do.NoNode(model, counts, max(seconds, math.ceil(-left)), loading=True)
    return do.NoNode(model, counts, max(seconds, math.ceil(left)), left, loading=bool(served.loading))
