"""The roster: who is linked, and who offers what."""

from __future__ import annotations

from dataclasses import replace

from shrk_contract.terms import SILENCE_SECONDS_MAX, State
from shrk_coordinator.state.roster import MODELS_MAX, Roster
from support.states import a_report


def test_a_node_offers_a_model_while_its_engine_serves_it() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("m"))
    assert [n.node_id for n, _ in roster.offers("m")] == ["a"]
    roster.report(1.0, node, a_report("m", state=State.LOADING))
    assert list(roster.offers("m")) == []
    assert roster.knows("m")
    assert roster.not_serving("m") == {"loading": 1}


def test_what_runs_on_a_node_is_remembered_over_its_reports() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("m"))
    node.offers["m"].in_flight = 3
    roster.report(5.0, node, a_report("m", slots=9))
    assert (node.offers["m"].in_flight, node.offers["m"].engine.slots) == (3, 9)


def test_an_older_report_that_arrives_late_is_dropped() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, replace(a_report("new"), sequence=2))
    roster.report(1.0, node, replace(a_report("old"), sequence=1))
    assert list(node.offers) == ["new"]
    assert node.heard_at == 1.0


def test_a_lost_node_offers_nothing_until_it_is_back() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("m"))
    roster.unlink(node)
    assert (list(roster.offers("m")), node.state) == ([], State.OFFLINE)
    roster.link(1.0, "a", 2, 2, "owner")
    assert node.state is State.STARTING


def test_only_linked_nodes_can_be_silent() -> None:
    roster = Roster()
    roster.link(0.0, "quiet", 1, 1, "owner")
    roster.unlink(roster.link(0.0, "gone", 2, 1, "owner"))
    assert [n.node_id for n in roster.silent(SILENCE_SECONDS_MAX + 1)] == ["quiet"]


def test_names_that_nobody_serves_make_room_for_those_that_somebody_does() -> None:
    roster = Roster()
    liar = roster.link(0.0, "liar", 1, 1, "owner")
    for first in range(0, MODELS_MAX, 50):
        roster.report(0.0, liar, a_report(*(f"junk-{first + n}" for n in range(50))))
    honest = roster.link(0.0, "honest", 2, 1, "owner")
    roster.report(0.0, honest, a_report("real"))
    assert [n.node_id for n, _ in roster.offers("real")] == ["honest"]


def test_the_nearest_names_are_those_that_are_served_first() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("shark-tiny", "whale"))
    assert roster.nearest("shark-tinny") == ("shark-tiny",)
    assert roster.nearest("zzz") == ()
