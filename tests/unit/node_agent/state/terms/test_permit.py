"""All terms as one: the strictest of each holds, and the most important one is told."""

from __future__ import annotations

import itertools

import pytest

from shrk_contract.terms import State
from shrk_node_agent.state.terms.actuators import Rung
from shrk_node_agent.state.terms.hours import Opening
from shrk_node_agent.state.terms.occupancy import Occupancy
from shrk_node_agent.state.terms.permit import DRAIN_SECONDS, Pause, Permit, in_words, node_permit, permit
from shrk_node_agent.state.terms.thermal import Thermal

NOW = 1_000.0
OPEN, CLOSED = Opening(True, closes_in=18_720.0), Opening(False, opens_in=7_200.0)
COOL = Thermal("a", 0, reason="50 °C of 70 °C")
HOT = Thermal("b", 1, admits=False, reason="69 °C of 70 °C; takes work again at 65 °C for 30 s")
STOPPED = Thermal("b", 1, Rung.STOP, admits=False, slot_share=0.0, drain=True, stop=True, reason="79 °C of 70 °C")
LOST = Thermal("b", 1, admits=False, slot_share=0.0, drain=True, stop=True, lost=True, reason="it does not answer")
THEIRS = Occupancy("a", 0, theirs=True, drain_by=NOW + 4.0, reason="another program holds 3.0 GB of it")


def test_where_nothing_holds_the_engines_own_states_do() -> None:
    assert permit(NOW, OPEN, [COOL]) == Permit(closes_in=18_720.0)
    assert permit(NOW, Opening(True)) == Permit()


def test_heat_shuts_and_leaves_what_runs() -> None:
    told = permit(NOW, OPEN, [COOL, HOT])
    assert (told.state, told.admits, told.stop, told.drain_by) == (State.COOLING, False, False, None)
    assert told.reason == "GPU 1: 69 °C of 70 °C; takes work again at 65 °C for 30 s"
    assert permit(NOW, OPEN, [STOPPED]).stop
    draining = Thermal("b", 1, Rung.DRAIN, admits=False, slot_share=0.0, drain=True)
    assert (permit(NOW, OPEN, [draining]).drain_by, permit(NOW, OPEN, [draining]).stop) == (NOW, False)


def test_fewer_slots_hold_while_work_is_taken_and_the_reason_says_so() -> None:
    told = permit(NOW, OPEN, [Thermal("a", 0, Rung.FEWER_SLOTS, slot_share=0.5, reason="60 °C of 70 °C; 50% of ...")])
    assert (told.state, told.admits, told.slot_share) == (None, True, 0.5)
    assert told.reason.startswith("GPU 0: 60 °C")


def test_a_window_is_drained_before_it_closes_and_ended_after() -> None:
    assert permit(NOW, Opening(True, closes_in=DRAIN_SECONDS + 1)).state is None
    closing = permit(NOW, Opening(True, closes_in=55.0))
    assert (closing.state, closing.admits, closing.stop, closing.drain_by) == (State.DRAINING, False, False, NOW + 55.0)
    assert (closing.reason, closing.closes_in) == ("its owner's hours end in 55 s", 55.0)
    assert permit(NOW, Opening(True, closes_in=200.0), drain_seconds=300.0).state is State.DRAINING
    closed = permit(NOW, CLOSED)
    assert (closed.state, closed.admits, closed.stop) == (State.OFF_SCHEDULE, False, True)
    assert closed.reason == "outside its owner's hours; it opens in 2 h"
    assert "opens never" in permit(NOW, Opening(False)).reason


def test_a_pause_lets_answers_end_and_is_over_in_its_time() -> None:
    pause = Pause(NOW, NOW + 7_200.0)
    begun = permit(NOW, OPEN, pause=pause)
    assert (begun.state, begun.stop, begun.drain_by) == (State.PAUSED, False, NOW + DRAIN_SECONDS)
    assert begun.reason == "paused by its owner for another 2 h"
    assert permit(NOW + DRAIN_SECONDS, OPEN, pause=pause).stop
    assert permit(NOW + 7_200.0, OPEN, pause=pause).state is None
    assert permit(NOW, OPEN, pause=Pause(NOW, at_once=True)).stop
    assert "until it is resumed" in permit(NOW + 1e6, OPEN, pause=Pause(NOW)).reason


def test_the_owner_has_the_gpu_and_its_memory_in_time() -> None:
    told = permit(NOW, OPEN, [COOL], [THEIRS])
    assert (told.state, told.admits, told.stop, told.drain_by) == (State.PAUSED, False, False, NOW + 4.0)
    assert told.reason == "GPU 0: another program holds 3.0 GB of it"
    assert permit(NOW + 4.0, OPEN, [COOL], [THEIRS]).stop


def test_a_lost_gpu_is_told_before_everything_else() -> None:
    told = permit(NOW, CLOSED, [LOST, HOT], pause=Pause(NOW))
    assert (told.state, told.stop, told.drain_by) == (State.OFFLINE, True, NOW)


TERMS = {
    "pause": (State.PAUSED, {"pause": Pause(NOW)}),
    "hours": (State.OFF_SCHEDULE, {"opening": CLOSED}),
    "owner": (State.PAUSED, {"occupancies": [THEIRS]}),
    "heat": (State.COOLING, {"thermals": [HOT]}),
}


@pytest.mark.parametrize("count", range(1, len(TERMS) + 1))
def test_the_first_of_those_that_hold_is_told_and_the_rest_beside_it(count: int) -> None:
    for names in itertools.combinations(TERMS, count):
        given: dict[str, object] = {"opening": OPEN}
        for name in names:
            given |= TERMS[name][1]
        told = permit(NOW, **given)  # type: ignore[arg-type]  # the table's values are what their keys take
        alone = [permit(NOW, **({"opening": OPEN} | TERMS[name][1])) for name in names]  # type: ignore[arg-type]  # as above
        assert (told.state, told.admits) == (TERMS[names[0]][0], False)
        assert (told.reason, *told.also) == tuple(one.reason for one in alone)
        assert told.stop is any(one.stop for one in alone)
        assert told.drain_by == min((one.drain_by for one in alone if one.drain_by is not None), default=None)


def test_a_node_is_what_the_best_of_its_engines_is() -> None:
    hot, fine = permit(NOW, OPEN, [HOT]), permit(NOW, OPEN, [COOL])
    assert node_permit([hot, fine]) == fine
    assert node_permit([hot, permit(NOW, OPEN, [LOST])]) == hot
    assert node_permit([]) == Permit()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (50.0, "50 s"),
        (720.0, "12 min"),
        (18_720.0, "5 h 12 min"),
        (7_200.0, "2 h"),
        (273_600.0, "3 d 4 h"),
        (172_800.0, "2 d"),
    ],
)
def test_times_are_told_as_people_tell_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
