"""Heat: what a GPU may be given to do, rung by rung, and what is said of it."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from shrk_node_agent.state.devices import HARDWARE_THERMAL, GpuReading
from shrk_node_agent.state.terms.actuators import Abilities, Actuation, Rung
from shrk_node_agent.state.terms.thermal import Heat

CAP = 70.0


class Card:
    """A controller that is told a temperature once a second."""

    def __init__(self, abilities: Abilities | None = None) -> None:
        self.heat = Heat("GPU-a", 0, CAP, abilities or Abilities())
        self.now = 0.0
        self.flips = 0
        #: As the driver tells it.
        self.limit: float | None = 300.0
        self.wishes: list[Actuation] = []

    def told(self, *celsius: float | None, throttle: tuple[str, ...] = (), lost: bool = False) -> Heat:
        for degrees in celsius:
            admitted = self.heat.view.admits
            reading = GpuReading(
                "GPU-a",
                0,
                "a card",
                temperature_celsius=degrees,
                power_limit_watts=self.limit,
                throttle=throttle,
                lost=lost,
            )
            self.wishes += self.heat.reading(self.now, reading)
            self.flips += self.heat.view.admits is not admitted
            self.now += 1.0
        return self.heat

    def obeyed(self, *celsius: float) -> Heat:
        """The same, with a driver that does what is wished."""
        for degrees in celsius:
            self.told(degrees)
            for wish in self.wishes:
                self.limit = wish.value if wish.rung is Rung.POWER_LIMIT else self.limit
                self.heat.actuated(self.now, wish.rung, confirmed=True)
            self.wishes.clear()
        return self.heat

    def silent(self, seconds: float) -> Heat:
        for _ in range(int(seconds)):
            self.heat.tick(self.now)
            self.now += 1.0
        return self.heat


def ramp(first: float, last: float, step: float = 0.1) -> Iterable[float]:
    count = round(abs(last - first) / step)
    return (first + (last - first) * number / count for number in range(count + 1))


def test_before_the_first_temperature_nothing_is_admitted_and_with_it_all_at_once() -> None:
    card = Card()
    assert not card.heat.view.admits
    assert "has not come yet" in card.heat.view.reason
    view = card.told(50.0).view
    assert (view.admits, view.slot_share, view.rung, view.reason) == (True, 1.0, Rung.NONE, "50 °C of 70 °C")


def test_no_new_work_from_cap_minus_two_on_and_again_after_half_a_minute_at_cap_minus_five() -> None:
    card = Card()
    assert card.told(67.0, 67.0).view.admits
    view = card.told(68.0).view
    assert (view.admits, view.drain, view.stop, view.slot_share) == (False, False, False, 1.0)
    assert view.reason == "68 °C of 70 °C; takes work again at 65 °C for 30 s"
    assert view.next_action
    assert not card.told(*[66.0] * 100).view.admits
    assert not card.told(*[65.0] * 30).view.admits
    assert card.told(65.0).view.admits


def test_what_is_not_cool_all_the_time_begins_anew() -> None:
    card = Card()
    card.told(69.0, *[65.0] * 20, 66.0)
    assert not card.told(*[65.0] * 30).view.admits
    assert card.told(65.0).view.admits


def test_what_warms_quickly_is_shut_before_it_is_there() -> None:
    assert not Card().told(61.0, 62.0, 63.0, 64.0, 65.0).view.admits


def test_a_swing_around_the_edge_does_not_flip() -> None:
    card = Card()
    card.told(*[67.0, 69.0] * 1800)
    assert card.flips <= 2


def test_no_swing_at_all_flips_more_than_six_times_an_hour() -> None:
    card = Card()
    for _ in range(3):
        card.flips = 0
        card.told(*[*[60.0] * 40, 69.0] * 87)
        assert 2 <= card.flips <= 6
    assert "shut 3 times within the hour" in card.heat.view.reason


def test_one_step_to_a_degree_below_the_cap_costs_no_slots() -> None:
    view = Card().told(*[68.0] * 6, *[69.0] * 20).view
    assert (view.slot_share, view.rung) == (1.0, Rung.NONE)


def test_the_last_gentle_rung_is_fewer_slots_and_they_come_back_by_doubling() -> None:
    card = Card()
    view = card.told(*ramp(60.0, 70.0, 0.02)).view
    assert (view.rung, view.slot_share, view.admits) == (Rung.FEWER_SLOTS, 0.5, False)
    assert "50% of its slots" in view.reason
    view = card.told(70.5, 71.0).view
    assert (view.slot_share, view.drain) == (0.0, False)
    assert "moved to other nodes" in view.reason
    view = card.told(*[60.0] * 40).view
    assert (view.admits, view.slot_share, view.rung) == (True, 0.5, Rung.FEWER_SLOTS)
    view = card.told(*[60.0] * 600).view
    assert (view.slot_share, view.rung) == (1.0, Rung.NONE)


def test_ten_seconds_at_cap_plus_three_drain_and_cap_plus_eight_stops() -> None:
    card = Card()
    assert not card.told(*[73.0] * 10).view.drain
    view = card.told(73.0).view
    assert (view.rung, view.drain, view.stop, view.slot_share) == (Rung.DRAIN, True, False, 0.0)
    view = card.told(78.0).view
    assert (view.rung, view.stop) == (Rung.STOP, True)
    assert card.told(*[66.0] * 100).view.stop
    view = card.told(*[65.0] * 31).view
    assert (view.stop, view.drain, view.admits) == (False, False, True)


def test_less_than_ten_seconds_in_a_row_do_not_drain() -> None:
    assert not Card().told(*[*[73.0] * 9, 72.0] * 10).view.drain


def test_a_card_that_slows_itself_down_is_drained_at_any_temperature() -> None:
    view = Card().told(60.0, throttle=(HARDWARE_THERMAL,)).view
    assert (view.drain, view.admits, view.stop) == (True, False, False)
    assert view.reason.startswith("60 °C of 70 °C, and the card slows itself down for heat; what runs is moved")


@pytest.mark.parametrize("absurd", [0.0, 255.0, -1.0])
def test_an_absurd_temperature_counts_as_hot(absurd: float) -> None:
    card = Card()
    card.told(50.0)
    view = card.told(absurd).view
    assert not view.admits
    assert f"{absurd:g} °C cannot be" in view.reason
    assert not card.told(*[50.0] * 30).view.admits
    assert card.told(50.0).view.admits


def test_an_absurd_first_temperature_counts_as_hot_too() -> None:
    card = Card()
    assert not card.told(0.0, 50.0).view.admits
    assert card.told(*[50.0] * 30).view.admits


@pytest.mark.parametrize("how", ["readings without", "no readings"])
def test_silence_of_more_than_five_seconds_counts_as_hot_and_a_minute_of_it_drains(how: str) -> None:
    card = Card()
    card.told(50.0)
    quiet = (lambda n: card.told(*[None] * n)) if how == "readings without" else card.silent
    assert quiet(5).view.admits
    view = quiet(1).view
    assert (view.admits, view.drain) == (False, False)
    assert "no temperature for 6 s, which counts as hot" in view.reason
    assert quiet(61).view.drain


def test_a_driver_that_never_answers_admits_nothing_and_says_for_how_long() -> None:
    view = Card().silent(120).view
    assert not view.admits
    assert view.reason.startswith("no temperature for 119 s, which counts as hot")


def test_a_card_without_a_thermometer_takes_no_work() -> None:
    view = Card().told(*[None] * 100).view
    assert not view.admits
    assert "tells no temperature" in view.reason
    assert "visible_devices" in view.next_action


def test_a_lost_card_is_out() -> None:
    card = Card()
    card.told(50.0)
    view = card.told(None, lost=True).view
    assert (view.lost, view.admits, view.drain, view.stop, view.slot_share) == (True, False, True, True, 0.0)
    assert "fallen off the bus" in view.reason


def test_another_cap_holds_from_the_next_reading_on() -> None:
    card = Card(Abilities(target_temperature=True))
    card.told(75.0)
    card.heat.actuated(card.now, Rung.TARGET_TEMPERATURE, confirmed=True)
    card.heat.set_cap(90.0)
    [wish] = card.heat.tick(card.now)
    assert wish.value == 86.0
    assert card.told(*[75.0] * 31).view.admits


def test_the_rung_in_use_is_told_only_when_it_was_read_back() -> None:
    card = Card(Abilities(True, True, 100.0, 300.0))
    assert card.told(50.0).view.rung is Rung.NONE
    card.heat.actuated(card.now, Rung.TARGET_TEMPERATURE, confirmed=True)
    assert card.heat.view.rung is Rung.TARGET_TEMPERATURE
    view = card.told(*ramp(50.0, 66.9, 0.05)).view
    assert (view.rung, view.admits) == (Rung.TARGET_TEMPERATURE, True)
    card.heat.actuated(card.now, Rung.POWER_LIMIT, confirmed=True)
    assert card.heat.view.rung is Rung.POWER_LIMIT
    assert "its power is limited to 255 W" in card.heat.view.reason


def test_a_limit_that_the_owner_lowers_is_never_exceeded_by_ours() -> None:
    card = Card(Abilities(False, True, 100.0, 350.0))
    card.limit = 350.0
    card.told(*[50.0] * 10)
    card.limit = 200.0
    card.told(*[50.0] * 10, 67.0, 67.0)
    assert card.wishes == [Actuation(Rung.POWER_LIMIT, 170.0)]


def test_a_limit_that_the_owner_changes_while_ours_holds_is_the_owners_from_then_on() -> None:
    card = Card(Abilities(False, True, 100.0, 350.0))
    card.limit = 350.0
    card.obeyed(*[66.0] * 7, 67.0)
    assert card.limit == 297.5
    card.limit = 280.0
    assert card.obeyed(*[66.0] * 10).view.rung is Rung.NONE
    card.obeyed(67.0, *[60.0] * 600)
    assert (card.limit, card.heat.view.rung) == (280.0, Rung.NONE)


def test_a_step_that_failed_leaves_the_one_before_in_force_named_and_raised_again_when_it_is_cool() -> None:
    card = Card(Abilities(False, True, 100.0, 300.0))
    card.obeyed(*[66.0] * 7, 67.0)
    card.told(*[67.0] * 10)
    assert card.wishes.pop() == Actuation(Rung.POWER_LIMIT, 216.75)
    card.heat.actuated(card.now, Rung.POWER_LIMIT, confirmed=False)
    view = card.heat.view
    assert (view.rung, "its power is limited to 255 W" in view.reason) == (Rung.POWER_LIMIT, True)
    card.obeyed(*[60.0] * 200)
    assert (card.limit, card.heat.view.rung) == (300.0, Rung.NONE)


def test_a_step_that_took_effect_after_all_is_ours_as_soon_as_it_is_read() -> None:
    card = Card(Abilities(False, True, 100.0, 300.0))
    card.told(*[66.0] * 7, 67.0)
    card.heat.actuated(card.now, Rung.POWER_LIMIT, confirmed=False)
    assert card.heat.view.rung is Rung.NONE
    card.limit = 255.0
    assert "its power is limited to 255 W" in card.told(*[66.0] * 5).view.reason
    card.wishes.clear()
    card.obeyed(*[60.0] * 200)
    assert card.limit == 300.0


def test_a_target_that_is_confirmed_after_the_cap_was_lowered_does_not_count_and_the_new_one_is_wished() -> None:
    card = Card(Abilities(target_temperature=True))
    card.told(50.0)
    card.heat.set_cap(60.0)
    card.heat.actuated(card.now, Rung.TARGET_TEMPERATURE, confirmed=True)
    assert card.heat.view.rung is Rung.NONE
    [wish] = card.heat.tick(card.now)
    assert wish == Actuation(Rung.TARGET_TEMPERATURE, 56.0)
    card.heat.actuated(card.now, Rung.TARGET_TEMPERATURE, confirmed=True)
    assert card.heat.view.rung is Rung.TARGET_TEMPERATURE


def test_a_target_that_failed_is_tried_again_with_another_cap() -> None:
    card = Card(Abilities(target_temperature=True))
    card.told(50.0)
    card.heat.actuated(card.now, Rung.TARGET_TEMPERATURE, confirmed=False)
    card.heat.set_cap(80.0)
    [wish] = card.heat.tick(card.now)
    assert wish == Actuation(Rung.TARGET_TEMPERATURE, 76.0)


def test_whatever_is_told_nothing_is_admitted_on_a_reading_that_is_hot_or_none() -> None:
    seed = 20_261_130
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(40):
        card, celsius, flips = Card(), 50.0, list[float]()
        for _ in range(3_000):
            celsius = min(90.0, max(30.0, celsius + dice.uniform(-1.5, 1.5)))
            told = dice.choice([round(celsius)] * 60 + [0.0, 255.0, -3.0, None])
            before = card.heat.view.admits
            view = card.told(told).view
            if view.admits is not before:
                flips = [at for at in flips if card.now - at < 3600.0] + [card.now]
            assert len(flips) <= 6
            if view.admits:
                assert told is None or 0.0 < told < CAP - 2.0
            assert view.slot_share == 0.0 or not (view.drain or view.stop)
            assert view.reason
