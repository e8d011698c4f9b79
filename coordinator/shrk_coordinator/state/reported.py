"""What follows from a node's own report, for placement and for callers."""

from __future__ import annotations

from shrk_contract.terms import Report, State

#: As placement calls it (`Reason.KEPT_BACK`).
KEPT_BACK = "kept_back"


def margin(report: Report) -> float | None:
    """How many degrees its coolest device is below what the owner allows; None where either is not told.

    While one is cool, the node serves what runs there, and says of each model whether its own devices let it.
    """
    allowed = report.terms.temperature_celsius_max
    told = [d.temperature_celsius for d in report.devices if d.temperature_celsius is not None]
    return allowed - min(told) if allowed and told else None


def shown_away(state: State, kept_back: bool, refused: bool) -> str:
    """What callers are told of an engine that does not serve: what its owner's terms, or the node itself, keep from
    them is not on its way because somebody asks."""
    if kept_back and state in (State.PAUSED, State.DRAINING):
        return KEPT_BACK
    return State.INCOMPATIBLE if refused and state is State.PAUSED else state
