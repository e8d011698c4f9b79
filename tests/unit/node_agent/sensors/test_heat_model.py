"""The simulated card's heat: what it settles at, and that looking at it changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.sensors.heat_model import HeatModel

CARD = HeatModel()
loads = st.floats(0, 1)
temperatures = st.floats(20, 110)


@given(celsius=temperatures, load=loads)
def test_it_settles_where_it_gives_off_as_much_as_it_draws(celsius: float, load: float) -> None:
    watts = CARD.watts(load)
    assert CARD.after(celsius, watts, 1e6) == pytest.approx(CARD.ambient_celsius + watts * CARD.celsius_per_watt)


@given(celsius=temperatures, load=loads, first=st.floats(0, 300), second=st.floats(0, 300))
def test_two_looks_see_what_one_would(celsius: float, load: float, first: float, second: float) -> None:
    watts = CARD.watts(load)
    assert CARD.after(CARD.after(celsius, watts, first), watts, second) == pytest.approx(
        CARD.after(celsius, watts, first + second), abs=1e-6
    )


@given(load=loads, target=st.floats(40, 90))
def test_under_a_target_temperature_it_settles_at_it_or_below(load: float, target: float) -> None:
    assert CARD.after(20, CARD.watts(load, target_celsius=target), 1e6) <= target + 1e-6


def test_it_draws_no_more_than_its_limit_and_load_has_ends() -> None:
    assert CARD.watts(1.0) == 350
    assert CARD.watts(7.0) == 350
    assert CARD.watts(-1.0) == CARD.idle_watts
    assert CARD.watts(1.0, limit_watts=200) == 200
