"""The two rungs that a driver has to permit: wished one at a time, claimed only when they were read back."""

from __future__ import annotations

import pytest

from shrk_node_agent.state.terms.actuators import (
    ACTUATE_SECONDS,
    SETTLE_SECONDS,
    Abilities,
    Actuation,
    Actuators,
    Rung,
)

CAP = 70.0
BOTH = Abilities(True, True, 100.0, 300.0)
POWER = Abilities(False, True, 100.0, 300.0)


def wishes(actuators: Actuators, now: float, celsius: float, forecast: float | None = None) -> tuple[Actuation, ...]:
    """Of a card whose driver does what is wished, and tells that: 300 W without a limit of ours."""
    actuators.told(now, actuators.watts or 300.0)
    return actuators.wishes(now, celsius, celsius if forecast is None else forecast)


def test_without_abilities_nothing_is_wished() -> None:
    actuators = Actuators(CAP, Abilities())
    assert [wishes(actuators, now, 90.0) for now in range(9)] == [()] * 9
    assert actuators.rung is Rung.NONE


def test_a_power_limit_without_a_range_is_no_ability() -> None:
    assert wishes(Actuators(CAP, Abilities(power_limit=True)), 0.0, 90.0) == ()


def test_the_target_temperature_is_set_at_once_and_claimed_when_it_was_read_back() -> None:
    actuators = Actuators(CAP, BOTH)
    assert wishes(actuators, 0.0, 40.0) == (Actuation(Rung.TARGET_TEMPERATURE, 66.0),)
    assert (wishes(actuators, 1.0, 40.0), actuators.rung) == ((), Rung.NONE)
    actuators.actuated(1.0, Rung.TARGET_TEMPERATURE, confirmed=True)
    assert (wishes(actuators, 2.0, 40.0), actuators.rung) == ((), Rung.TARGET_TEMPERATURE)


def test_a_rung_that_failed_is_never_claimed_and_the_next_one_is_used() -> None:
    actuators = Actuators(CAP, BOTH)
    wishes(actuators, 0.0, 40.0)
    actuators.actuated(0.5, Rung.TARGET_TEMPERATURE, confirmed=False)
    assert actuators.rung is Rung.NONE
    assert wishes(actuators, 1.0, 69.0) == (Actuation(Rung.POWER_LIMIT, 255.0),)
    actuators.actuated(1.5, Rung.POWER_LIMIT, confirmed=False)
    assert actuators.rung is Rung.NONE
    assert [wishes(actuators, now, 75.0) for now in range(2, 20)] == [()] * 18


def test_a_driver_that_does_not_answer_has_not_done_it_and_is_not_believed_later() -> None:
    actuators = Actuators(CAP, POWER)
    wishes(actuators, 0.0, 69.0)
    assert wishes(actuators, ACTUATE_SECONDS + 0.1, 69.0) == ()
    actuators.actuated(6.0, Rung.POWER_LIMIT, confirmed=True)
    assert actuators.rung is Rung.NONE


def test_power_goes_down_in_steps_to_its_least_and_up_again_when_it_is_cool() -> None:
    actuators = Actuators(CAP, POWER)
    limits, now = [], 0.0
    for celsius in [69.0] * 60 + [60.0] * 700:
        for wish in wishes(actuators, now, celsius):
            limits.append(round(wish.value))
            actuators.actuated(now, wish.rung, confirmed=True)
        now += 1.0
    assert limits[:7] == [255, 217, 184, 157, 133, 113, 100]
    assert limits[7:] == [118, 138, 163, 192, 225, 265, 300]
    assert (actuators.rung, actuators.watts) == (Rung.NONE, None)


def test_without_a_limit_that_is_told_none_is_wished() -> None:
    actuators = Actuators(CAP, POWER)
    assert actuators.wishes(0.0, 90.0, 90.0) == ()
    actuators.told(1.0, 250.0)
    assert actuators.wishes(1.0, 90.0, 90.0) == (Actuation(Rung.POWER_LIMIT, 212.5),)


def test_a_reading_that_may_be_older_than_what_was_set_changes_nothing() -> None:
    actuators = Actuators(CAP, POWER)
    wishes(actuators, 0.0, 69.0)
    actuators.told(0.1, 300.0)
    actuators.actuated(0.2, Rung.POWER_LIMIT, confirmed=True)
    actuators.told(0.3, 300.0)
    assert actuators.watts == 255.0
    actuators.told(0.2 + SETTLE_SECONDS, 300.0)
    assert actuators.watts is None


@pytest.mark.parametrize(("cap", "target", "claimed"), [(60.0, 65.0, False), (80.0, 76.0, True), (95.0, 88.0, True)])
def test_a_target_is_one_that_the_card_takes_and_claimed_only_where_it_is_below_the_cap(
    cap: float, target: float, claimed: bool
) -> None:
    actuators = Actuators(cap, Abilities(target_temperature=True, target_min=65.0, target_max=88.0))
    assert wishes(actuators, 0.0, 40.0) == (Actuation(Rung.TARGET_TEMPERATURE, target),)
    actuators.actuated(0.0, Rung.TARGET_TEMPERATURE, confirmed=True)
    assert (actuators.rung is Rung.TARGET_TEMPERATURE) is claimed
    assert wishes(actuators, 1.0, 40.0) == ()


def test_what_is_never_permitted_is_asked_for_more_and_more_seldom() -> None:
    actuators = Actuators(CAP, Abilities(target_temperature=True))
    asked = []
    for now in range(4 * 3600):
        if actuators.wishes(float(now), 40.0, 40.0):
            asked.append(now)
            actuators.actuated(float(now), Rung.TARGET_TEMPERATURE, confirmed=False)
    assert asked == [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980]
