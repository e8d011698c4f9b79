"""What a thermometer is worth: believed or not, and where it is going."""

from __future__ import annotations

import math

import pytest

from shrk_node_agent.state.terms.gauge import SILENCE_SECONDS_MAX, Gauge, Trust


def told(*celsius: float) -> Gauge:
    """Once a second, from 0 on."""
    gauge = Gauge()
    for now, degrees in enumerate(celsius):
        gauge.read(now, degrees)
    return gauge


def test_it_waits_for_the_first_temperature_and_is_then_told() -> None:
    gauge = Gauge()
    assert gauge.trust is Trust.WAITING
    gauge.read(0.0, 40.0)
    assert (gauge.trust, gauge.celsius) == (Trust.TOLD, 40.0)


def test_a_driver_that_never_answers_is_silent_too() -> None:
    gauge = Gauge()
    gauge.tick(100.0)
    gauge.tick(100.0 + SILENCE_SECONDS_MAX)
    assert gauge.trust is Trust.WAITING
    gauge.tick(112.0)
    assert (gauge.trust, gauge.quiet(112.0)) == (Trust.SILENT, 12.0)


def test_a_card_that_never_told_a_temperature_is_unknown_until_it_does() -> None:
    gauge = Gauge()
    gauge.read(0.0, None)
    gauge.tick(100.0)
    assert gauge.trust is Trust.UNKNOWN
    gauge.read(101.0, 40.0)
    assert gauge.trust is Trust.TOLD


def test_it_is_silent_after_five_seconds_with_or_without_readings() -> None:
    gauge = told(40.0)
    gauge.read(SILENCE_SECONDS_MAX, None)
    assert gauge.trust is Trust.TOLD
    gauge.tick(SILENCE_SECONDS_MAX + 0.1)
    assert (gauge.trust, gauge.celsius) == (Trust.SILENT, 40.0)


@pytest.mark.parametrize("absurd", [0.0, 255.0, -1.0, 151.0, math.nan, math.inf])
def test_what_no_card_has_is_absurd_and_does_not_replace_what_was_told(absurd: float) -> None:
    gauge = told(60.0, absurd)
    assert (gauge.trust, gauge.celsius) == (Trust.ABSURD, 60.0)
    gauge.read(2.0, None)
    assert gauge.trust is Trust.ABSURD
    gauge.read(3.0, 61.0)
    assert gauge.trust is Trust.TOLD


def test_the_forecast_goes_on_as_the_last_readings_went() -> None:
    gauge = told(60.0, 61.0, 62.0, 63.0)
    assert gauge.slope == pytest.approx(1.0)
    assert gauge.forecast(3.0, 4.0) == pytest.approx(67.0)


def test_what_falls_is_not_forecast_to_fall() -> None:
    assert told(63.0, 62.0, 61.0).forecast(2.0, 4.0) == 61.0


def test_whole_degrees_that_have_risen_hide_up_to_one_more() -> None:
    assert told(66.0, 67.0, *[67.0] * 10).warmest(11.0, 4.0) == 68.0
    assert told(68.0, 67.0, *[67.0] * 10).warmest(11.0, 4.0) == 67.0
    assert told(67.0).warmest(0.0, 4.0) == 67.0
    assert told(66.5, 66.6, *[66.6] * 10).warmest(11.0, 4.0) == 66.6


def test_what_is_not_told_any_more_may_have_warmed_meanwhile() -> None:
    gauge = told(60.0)
    assert gauge.forecast(2.0, 4.0) == 60.0
    assert gauge.forecast(5.0, 4.0) == 63.0
