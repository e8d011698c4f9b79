"""Bugs that the simulation of heat has to find, as limits that are not the product's."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from shrk_node_agent.state.terms.thermal import LIMITS, Limits


class Bug(StrEnum):
    """What can be planted."""

    #: Where the card is going is not looked at.
    NO_FORECAST = "no_forecast"
    #: It opens as soon as it is below the temperature at which it was shut, however often.
    NO_HYSTERESIS = "no_hysteresis"
    #: A thermometer that says nothing is believed to say what it said last.
    SILENCE_IS_BELIEVED = "silence_is_believed"
    #: Work is taken up to the cap itself.
    SHUTS_AT_CAP = "shuts_at_cap"


_LIMITS = {
    Bug.NO_FORECAST: replace(LIMITS, lead_seconds=0.0),
    Bug.NO_HYSTERESIS: replace(LIMITS, open_below_cap=2.5, cool_seconds=0.0, flips=float("inf")),
    Bug.SILENCE_IS_BELIEVED: replace(LIMITS, silence_seconds=float("inf")),
    Bug.SHUTS_AT_CAP: replace(LIMITS, shut_below_cap=0.0),
}


def limits_with(bug: Bug | None) -> Limits:
    """The product's own, or with a bug."""
    return LIMITS if bug is None else _LIMITS[bug]
