"""What a caller is told where no node can be asked: when it is worth another try, and whether the model is loaded."""

from __future__ import annotations

import math

from shrk_contract.terms import State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.roster import COMING, Roster

#: What a caller is told to wait, in seconds, where nothing better is known.
RETRY_AFTER_SECONDS = 2.0
#: States of engines that are being loaded, or are as soon as somebody asks.
_LOADABLE = frozenset({State.PAUSED, *COMING})


def no_node(
    roster: Roster,
    now: float,
    model: str,
    counts: tuple[tuple[str, int], ...],
    retry_after: float = RETRY_AFTER_SECONDS,
) -> do.NoNode:
    """Nobody can be asked now, for these reasons. Where nobody has the model loaded, its caller is to come back when
    somebody should have, and not sooner."""
    served = roster.served(model)
    if served is None or served.offers or not dict(counts).keys() & _LOADABLE:
        return do.NoNode(model, counts, math.ceil(retry_after))
    left = served.seconds_to_load(now)
    return do.NoNode(model, counts, math.ceil(max(retry_after, left)), left, loading=bool(served.loading))
