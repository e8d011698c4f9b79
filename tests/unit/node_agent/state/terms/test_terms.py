"""All terms together, as the door asks for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shrk_contract.terms import State
from shrk_node_agent.state.devices import GpuProcess, GpuReading
from shrk_node_agent.state.terms.actuators import Abilities, Actuation, Rung
from shrk_node_agent.state.terms.hours import Schedule
from shrk_node_agent.state.terms.occupancy import Ours
from shrk_node_agent.state.terms.permit import Pause
from shrk_node_agent.state.terms.terms import Terms, Wanted

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def gpu(celsius: float | None, uuid: str = "GPU-0", **more: object) -> GpuReading:
    return GpuReading(uuid, 0, "card", 24 << 30, 24 << 30, celsius, **more)  # type: ignore[arg-type]  # as named


def read(terms: Terms, now: float, *readings: GpuReading) -> None:
    terms.read(now, readings, {}, {reading.uuid: Ours() for reading in readings})


def test_without_a_word_of_the_owner_and_without_gpus_everything_is_permitted() -> None:
    terms = Terms()
    terms.tick(0.0, NOON)
    assert terms.permit(0.0).admits
    assert terms.permit(0.0).state is None


def test_where_gpus_are_expected_nothing_is_served_before_one_was_read_and_the_reason_is_the_drivers() -> None:
    terms = Terms(Wanted(gpus=True))
    assert (terms.permit(0.0).state, terms.permit(0.0).admits) == (State.COOLING, False)
    terms.failed("NVML does not answer")
    assert terms.permit(0.0).reason == "NVML does not answer"
    for now in (0.0, 1.0):
        read(terms, now, gpu(40.0))
    assert terms.permit(1.0).admits


def test_a_card_close_to_its_cap_takes_nothing_and_a_cap_that_is_raised_counts_from_then_on() -> None:
    terms = Terms(Wanted(cap=70.0, gpus=True))
    for now in range(3):
        read(terms, float(now), gpu(69.0))
    assert (terms.permit(3.0).state, terms.permit(3.0).admits) == (State.COOLING, False)
    assert "69 °C of 70 °C" in terms.permit(3.0).reason
    terms.change(Wanted(cap=85.0, gpus=True))
    for now in range(3, 40):
        read(terms, float(now), gpu(69.0))
    assert terms.permit(40.0).admits


def test_a_reading_that_stops_to_come_counts_as_hot() -> None:
    terms = Terms(Wanted(gpus=True))
    read(terms, 0.0, gpu(40.0))
    read(terms, 1.0, gpu(40.0))
    assert terms.permit(1.0).admits
    for now in range(2, 9):
        terms.failed("time-out")
        terms.tick(float(now), NOON)
    assert not terms.permit(8.0).admits
    assert "no temperature for" in terms.permit(8.0).reason


def test_hours_are_those_of_the_owners_zone_and_a_pause_ends_by_itself() -> None:
    terms = Terms(Wanted(schedule=Schedule.parse("22:00-08:00")))
    terms.tick(0.0, NOON)
    assert (terms.permit(0.0).state, terms.permit(0.0).stop) == (State.OFF_SCHEDULE, True)
    terms.tick(1.0, NOON + timedelta(hours=11))
    assert terms.permit(1.0).admits
    terms.pause = Pause(2.0, 100.0)
    assert terms.permit(3.0).state is State.PAUSED
    terms.tick(100.0, NOON + timedelta(hours=11))
    assert terms.permit(100.0).admits


def test_a_stranger_on_the_card_sends_us_away_within_five_seconds() -> None:
    terms = Terms(Wanted(gpus=True))
    read(terms, 0.0, gpu(40.0, processes=()))
    read(terms, 1.0, gpu(40.0, processes=(GpuProcess(4711, 8 << 30),)))
    permit = terms.permit(1.0)
    assert (permit.state, permit.admits, permit.drain_by) == (State.PAUSED, False, 6.0)


def test_a_lost_card_beside_one_that_is_well_does_not_count() -> None:
    terms = Terms(Wanted(gpus=True))
    for now in (0.0, 1.0):
        read(terms, now, gpu(40.0), gpu(None, "GPU-1", lost=True))
    assert terms.permit(1.0).admits
    read(terms, 2.0, gpu(None, lost=True), gpu(None, "GPU-1", lost=True))
    assert (terms.permit(2.0).state, terms.permit(2.0).stop) == (State.OFFLINE, True)


def test_an_engine_is_permitted_what_its_own_gpus_are() -> None:
    terms = Terms(Wanted(gpus=True))
    for now in (0.0, 1.0):
        read(terms, now, gpu(40.0), gpu(69.0, "GPU-1"), gpu(None, "GPU-2", lost=True))
    assert terms.permit(1.0, ["GPU-0"]).admits
    assert (terms.permit(1.0, ["GPU-1"]).state, terms.permit(1.0, ["GPU-0", "GPU-1"]).admits) == (State.COOLING, False)
    assert terms.permit(1.0, ["GPU-0", "GPU-2"]).state is State.OFFLINE
    assert not terms.permit(1.0).admits, "what may run on any of them is held to the worst"


def test_a_card_that_is_missing_from_a_good_reading_is_lost_and_the_others_go_on() -> None:
    terms = Terms(Wanted(gpus=True))
    one, other = gpu(40.0), GpuReading("GPU-1", 1, "other", temperature_celsius=40.0)
    for now in (0.0, 1.0):
        read(terms, now, one, other)
    for now in range(2, 100):
        read(terms, float(now), one)
        terms.tick(now + 0.5, NOON)
    assert terms.permit(100.0).admits
    assert terms.heats["GPU-1"].view.lost
    assert [(reading.index, reading.name, reading.lost) for reading in terms.readings] == [
        (0, "card", False),
        (1, "other", True),
    ]
    read(terms, 100.0)
    assert (terms.permit(100.0).state, terms.permit(100.0).stop) == (State.OFFLINE, True)
    for now in range(101, 140):
        read(terms, float(now), one, other)
    assert terms.permit(140.0).admits
    assert not terms.heats["GPU-1"].view.lost
    assert len(terms.readings) == 2


def test_a_card_that_was_lost_before_it_told_its_name_is_not_missed_when_it_has_told_it() -> None:
    terms = Terms(Wanted(gpus=True))
    read(terms, 0.0, GpuReading("index-0", 0, "unknown GPU", lost=True))
    for now in (1.0, 2.0):
        read(terms, now, gpu(40.0))
    assert [reading.uuid for reading in terms.readings] == list(terms.heats) == ["GPU-0"]
    assert terms.permit(2.0).admits
    # And the same the other way round: one that has lost its name too is one card, not two.
    read(terms, 3.0, GpuReading("index-0", 0, "unknown GPU", lost=True))
    assert [reading.uuid for reading in terms.readings] == ["index-0"]
    assert terms.permit(3.0).state is State.OFFLINE


def test_what_a_driver_learns_to_set_later_is_used_from_then_on() -> None:
    terms = Terms(Wanted(gpus=True))
    terms.read(0.0, [gpu(40.0)], {"GPU-0": Abilities()}, {"GPU-0": Ours()})
    able = Abilities(target_temperature=True)
    wished = ("GPU-0", Actuation(Rung.TARGET_TEMPERATURE, 66.0))
    assert terms.read(1.0, [gpu(40.0)], {"GPU-0": able}, {"GPU-0": Ours()}) == (wished,)
    # What is not told just now is not unlearnt.
    terms.actuated(1.0, "GPU-0", Rung.TARGET_TEMPERATURE, confirmed=True)
    terms.read(2.0, [gpu(40.0)], {"GPU-0": Abilities()}, {"GPU-0": Ours()})
    terms.change(Wanted(cap=80.0, gpus=True))
    assert [wish.value for _, wish in terms.read(3.0, [gpu(40.0)], {}, {"GPU-0": Ours()})] == [76.0]
