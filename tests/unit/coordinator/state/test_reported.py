"""What follows from a node's own report."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Device, Host, Report, State, Status, Terms
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.reported import KEPT_BACK, margin, shown_away


def test_the_coolest_device_counts_and_what_is_not_told_does_not() -> None:
    devices = (Device("0", temperature_celsius=69.0), Device("1", temperature_celsius=40.0), Device("2"))
    report = Report(Host(), Status(State.ONLINE), devices=devices, terms=Terms(temperature_celsius_max=70.0))
    assert margin(report) == 30.0
    assert margin(Report(Host(), Status(State.ONLINE), devices=devices)) is None
    assert margin(Report(Host(), Status(State.ONLINE), terms=Terms(temperature_celsius_max=70.0))) is None


@pytest.mark.parametrize(
    ("state", "kept_back", "refused", "told"),
    [
        (State.PAUSED, False, False, "paused"),
        (State.PAUSED, True, False, KEPT_BACK),
        (State.DRAINING, True, False, KEPT_BACK),
        (State.DRAINING, False, True, "draining"),
        (State.PAUSED, False, True, "incompatible"),
        (State.LOADING, True, True, "loading"),
    ],
)
def test_what_nobody_loads_for_who_asks_is_not_said_to_be_away_for_a_moment(
    state: State, kept_back: bool, refused: bool, told: str
) -> None:
    assert shown_away(state, kept_back, refused) == told
    assert Reason.KEPT_BACK == KEPT_BACK
