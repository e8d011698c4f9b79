"""What the door does when the owner's terms change: what is taken, what runs, and what is loaded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shrk_contract.terms import Endpoint, Pin, Rejection, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from shrk_node_agent.state.terms.actuators import Abilities
from shrk_node_agent.state.terms.hours import Schedule
from shrk_node_agent.state.terms.permit import DRAIN_SECONDS
from shrk_node_agent.state.terms.terms import Terms, Wanted

CHAT = Endpoint.CHAT_COMPLETIONS
NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
SLOTS = 4


def a_node(wanted: Wanted | None = None, abilities: Abilities | None = None, needed_bytes: int = 10) -> NodeState:
    """A node with one engine that serves."""
    node = NodeState([Need("m", "m", needed_bytes)], terms=Terms(wanted))
    if wanted is not None and wanted.gpus:
        heat(node, 0.0, 50.0, abilities)
    node.handle(seen.Tick(0.0, NOON))
    node.handle(seen.EngineBecameReady(0.5, "m", Pin(), (CHAT,), SLOTS, 4096))
    return node


def ask(node: NodeState, now: float, stream: int = 1) -> Effect:
    [effect] = node.handle(seen.AttemptAsked(now, (1, stream), "m", CHAT))
    return effect


def heat(node: NodeState, now: float, celsius: float, abilities: Abilities | None = None) -> list[Effect]:
    reading = GpuReading("GPU-0", 0, "card", 24 << 30, 24 << 30, celsius, power_limit_watts=300.0)
    return list(node.handle(seen.SensorsRead(now, (reading,), {"GPU-0": abilities or Abilities()}, frozenset())))


def test_a_paused_node_takes_nothing_lets_answers_end_and_gives_the_memory_back() -> None:
    node = a_node()
    assert isinstance(ask(node, 1.0), do.RunAttempt)
    assert do.TellStatus() in node.handle(seen.PauseAsked(2.0, None))
    refused = ask(node, 3.0, 2)
    assert isinstance(refused, do.RejectAttempt)
    assert (refused.reason, "paused by its owner" in refused.message) == (Rejection.TERMS, True)
    assert (node.status()[0], node.closes_in(3.0)) == (State.PAUSED, DRAIN_SECONDS - 1.0)
    assert not [e for e in node.handle(seen.Tick(3.0, NOON)) if isinstance(e, do.UnloadEngine | do.MoveAttempts)]
    late = list(node.handle(seen.Tick(2.0 + DRAIN_SECONDS, NOON)))
    assert [e.keys for e in late if isinstance(e, do.MoveAttempts)] == [((1, 1),)]
    assert do.UnloadEngine("m") in late
    node.handle(seen.AttemptEnded(70.0, (1, 1)))
    node.handle(seen.EngineEnded(71.0, "m", "stopped", False))
    assert node.engines["m"].state is State.PAUSED
    node.handle(seen.ResumeAsked(80.0))
    assert do.StartEngine("m") in node.handle(seen.Tick(80.0, NOON))
    assert node.kept_back == ""


def test_what_is_assigned_while_the_owner_has_the_machine_is_loaded_when_they_give_it_back() -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, 100.0))
    node.handle(seen.Tick(1.0 + DRAIN_SECONDS, NOON + timedelta(seconds=1.0 + DRAIN_SECONDS)))
    node.handle(seen.EngineEnded(62.0, "m", "stopped", False))
    node.handle(seen.Assigned(63.0, 1, 1, ("m",)))
    assert do.StartEngine("m") not in node.handle(seen.Tick(64.0, NOON + timedelta(seconds=64)))
    assert do.StartEngine("m") in node.handle(seen.Tick(101.5, NOON + timedelta(seconds=101.5)))


def test_outside_its_hours_a_node_loads_nothing_and_inside_it_does() -> None:
    node = NodeState([Need("m", "m")], terms=Terms(Wanted(schedule=Schedule.parse("22:00-08:00"))))
    assert do.StartEngine("m") not in node.handle(seen.Tick(0.0, NOON))
    assert (node.status()[0], node.engines["m"].state) == (State.OFF_SCHEDULE, State.PAUSED)
    assert do.StartEngine("m") in node.handle(seen.Tick(1.0, NOON + timedelta(hours=10)))


def test_a_hot_card_takes_nothing_new_and_what_runs_goes_on_until_it_is_too_hot() -> None:
    node = a_node(Wanted(cap=70.0, gpus=True))
    for now in (1.0, 2.0):
        heat(node, now, 50.0)
    for stream in range(SLOTS):
        assert isinstance(ask(node, 2.0, stream), do.RunAttempt)
    warming = [e for second in range(80) for e in heat(node, 3.0 + second, 50.0 + second * 0.225)]
    assert isinstance(ask(node, 83.0, 9), do.RejectAttempt)
    assert not [e for e in warming if isinstance(e, do.MoveAttempts)]
    assert "°C of 70 °C" in node.kept_back
    moved = [e for now in (84.0, 85.0) for e in heat(node, now, 74.0) if isinstance(e, do.MoveAttempts)]
    assert moved
    assert node.engines["m"].state is State.ONLINE, "it stays loaded"
    stopped = [*heat(node, 86.0, 79.0), *node.handle(seen.Tick(86.2, NOON))]
    assert do.UnloadEngine("m") in stopped


def test_with_fewer_slots_the_newest_answers_are_moved_and_no_more_are_taken() -> None:
    node = a_node(Wanted(cap=70.0, gpus=True))
    for now in (1.0, 2.0):
        heat(node, now, 50.0)
    for stream in range(SLOTS):
        ask(node, 2.0, stream)
    heat(node, 3.0, 69.0)
    moved = [e for e in heat(node, 4.0, 70.0) if isinstance(e, do.MoveAttempts)]
    assert moved
    share = node.permit.slot_share
    assert share < 1.0
    kept = int(SLOTS * share)
    assert moved[0].keys == tuple((1, stream) for stream in range(kept, SLOTS))


def test_what_should_be_set_on_a_card_is_asked_for_and_a_failed_reading_is_no_reading() -> None:
    able = Abilities(target_temperature=False, power_limit=True, watts_min=100.0, watts_max=300.0)
    node = a_node(Wanted(cap=70.0, gpus=True), able)
    effects = [e for now in (1.0, 2.0, 3.0) for e in heat(node, now, 68.0, able)]
    assert [e.uuid for e in effects if isinstance(e, do.ActuateGpu)] == ["GPU-0"]
    node.handle(seen.SensorsFailed(4.0, "time-out"))
    node.handle(seen.Tick(12.0, NOON))
    assert "counts as hot" in node.kept_back


@pytest.mark.parametrize("draining", [False, True])
def test_a_stopping_node_says_that_it_stops_whatever_its_terms_are(draining: bool) -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, None))
    if draining:
        node.handle(seen.DrainAsked(2.0))
    assert node.status()[0] is (State.DRAINING if draining else State.PAUSED)


def test_a_model_that_is_kept_back_is_told_with_what_its_owner_can_do() -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, None))
    node.handle(seen.Tick(1.0 + DRAIN_SECONDS, NOON))
    [engine] = node.reports(62.0, 0)
    assert engine.status.next_action == "shrk resume"


@pytest.mark.parametrize("pids", [None, frozenset({1})])
def test_memory_of_which_no_process_is_told_is_ours_as_far_as_our_engines_may_take_it(
    pids: frozenset[int] | None,
) -> None:
    def kept_back(needed_bytes: int) -> str:
        node = a_node(Wanted(gpus=True), needed_bytes=needed_bytes)
        for now in (1.0, 2.0):
            reading = GpuReading("GPU-0", 0, "card", 24 << 30, 2 << 30, 40.0)
            node.handle(seen.SensorsRead(now, (reading,), {}, pids))
        return node.kept_back

    assert kept_back(22 * 10**9) == ""
    assert kept_back(0) == "", "an engine of which nothing is known may take all of it"
    assert "taken and not by us" in kept_back(10 * 10**9)


def test_a_second_pause_loads_nothing_in_between() -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, 7_200.0))
    node.handle(seen.Tick(1.0 + DRAIN_SECONDS, NOON))
    node.handle(seen.EngineEnded(62.0, "m", "stopped", False))
    node.handle(seen.PauseAsked(600.0, None))
    assert not [e for e in node.handle(seen.Tick(601.0, NOON)) if isinstance(e, do.StartEngine)]
    assert (node.engines["m"].state, node.permit.stop) == (State.PAUSED, True)


def test_a_pause_that_was_there_before_the_agent_lets_nothing_start() -> None:
    node = NodeState([Need("m", "m")])
    node.handle(seen.PauseAsked(0.0, None, at_once=True))
    assert not [e for e in node.handle(seen.Tick(0.25, NOON)) if isinstance(e, do.StartEngine)]
    node.handle(seen.ResumeAsked(5.0))
    assert do.StartEngine("m") in node.handle(seen.Tick(5.25, NOON))


def test_a_timed_pause_that_was_there_before_the_agent_ends_when_its_owner_meant() -> None:
    node = NodeState([Need("m", "m")])
    node.handle(seen.PauseAsked(100.0, 7_200.0, at_once=True))
    for seconds in (0.25, 3_600.0, 7_199.0):
        effects = node.handle(seen.Tick(100.0 + seconds, NOON + timedelta(seconds=seconds)))
        assert not [e for e in effects if isinstance(e, do.StartEngine)]
        assert node.status()[0] is State.PAUSED
    assert do.StartEngine("m") in node.handle(seen.Tick(7_301.0, NOON + timedelta(seconds=7_201)))


def test_a_machine_that_slept_ends_a_pause_when_its_owner_meant() -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, 3_600.0))
    node.handle(seen.Tick(2.0, NOON + timedelta(seconds=2)))
    assert node.status()[0] is State.PAUSED
    # The monotonic clock stood still meanwhile.
    node.handle(seen.Tick(3.0, NOON + timedelta(hours=1, seconds=2)))
    assert (node.terms.pause, node.permit.admits) == (None, True)


def test_a_paused_node_with_nothing_under_way_gives_the_memory_back_at_once() -> None:
    node = a_node()
    node.handle(seen.PauseAsked(1.0, None))
    assert do.UnloadEngine("m") in node.handle(seen.Tick(1.25, NOON))
    assert node.engines["m"].reason == "paused by its owner until it is resumed"


def test_since_when_the_node_is_what_it_is_is_told() -> None:
    node = a_node()
    assert (node.status()[0], node.since) == (State.ONLINE, 0.5)
    node.handle(seen.PauseAsked(7.0, None))
    node.handle(seen.Tick(9.0, NOON))
    assert node.since == 7.0
