"""What a request that finds no node may hope for."""

from __future__ import annotations

from shrk_coordinator.state.placement import Nowhere, Reason
from shrk_coordinator.state.prospects import RETRY_AFTER_SECONDS, retry_after, seconds_until_turn
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, Waiting
from support.states import a_report

FULL = Nowhere(((Reason.FULL, 2),))


def a_roster(answer_seconds: float | None = None) -> Roster:
    """Two nodes of four slots each, whose answers take so long."""
    roster = Roster()
    for link, node in enumerate("ab"):
        roster.report(0.0, roster.link(0.0, node, link, 1, "owner"), a_report("m", slots=4))
    if answer_seconds is not None and (served := roster.served("m")) is not None:
        served.answered(answer_seconds)
    return roster


def test_a_place_comes_free_as_often_as_answers_end() -> None:
    assert seconds_until_turn(a_roster(16.0), Waiting(), "m", FULL) == 2.0
    assert seconds_until_turn(a_roster(), Waiting(), "m", FULL) == 0.0, "nothing is known yet"


def test_of_nodes_that_fail_no_place_is_expected() -> None:
    half = Nowhere(((Reason.FULL, 1), (Reason.EJECTED, 1), ("loading", 5)))
    assert seconds_until_turn(a_roster(16.0), Waiting(), "m", half) == 4.0


def test_whoever_would_wait_too_long_is_told_how_much_too_long() -> None:
    roster = a_roster(8 * (WAIT_SECONDS_MAX + 7.0))
    assert retry_after(0.0, roster, Waiting(), "m", FULL) == 7
    assert retry_after(0.0, a_roster(1.0), Waiting(), "m", FULL) == RETRY_AFTER_SECONDS


def test_where_all_fail_the_next_probe_is_the_time_and_never_at_once() -> None:
    roster = a_roster()
    for node in roster.nodes.values():
        node.offers["m"].standing.breaker.stall(0.0)
    failing = Nowhere(((Reason.EJECTED, 2),))
    assert retry_after(17.5, roster, Waiting(), "m", failing) == 13
    assert retry_after(30.0, roster, Waiting(), "m", failing) == 1


def test_of_anything_else_nobody_knows_how_long_it_takes() -> None:
    assert retry_after(0.0, a_roster(), Waiting(), "m", Nowhere((("loading", 2),))) == RETRY_AFTER_SECONDS
