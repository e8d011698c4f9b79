"""The roster: who is linked, and who offers what."""

from __future__ import annotations

from dataclasses import replace

from shrk_contract.terms import SILENCE_SECONDS_MAX, State, Terms
from shrk_coordinator.state.roster import BACK_SECONDS_MAX, LOOKED_MAX, MODELS_MAX, Roster
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
    roster.unlink(0.0, node)
    assert (list(roster.offers("m")), node.state) == ([], State.OFFLINE)
    roster.link(1.0, "a", 2, 2, "owner")
    assert node.state is State.STARTING


def test_only_linked_nodes_can_be_silent() -> None:
    roster = Roster()
    roster.link(0.0, "quiet", 1, 1, "owner")
    roster.unlink(0.0, roster.link(0.0, "gone", 2, 1, "owner"))
    assert [n.node_id for n in roster.silent(SILENCE_SECONDS_MAX + 1)] == ["quiet"]


def test_the_silent_are_all_unlinked_together() -> None:
    roster = Roster()
    for link, node in enumerate(("a", "b", "c")):
        roster.report(0.0, roster.link(0.0, node, link, 1, "owner"), a_report("m"))
    roster.nodes["b"].heard(SILENCE_SECONDS_MAX)
    assert [link for _, link in roster.unlink_silent(SILENCE_SECONDS_MAX + 1)] == [0, 2]
    assert [n.node_id for n, _ in roster.offers("m")] == ["b"]
    assert roster.unlink_silent(SILENCE_SECONDS_MAX + 1) == []


def test_names_that_nobody_serves_make_room_for_those_that_somebody_does() -> None:
    roster = Roster()
    liar = roster.link(0.0, "liar", 1, 1, "owner")
    for first in range(0, MODELS_MAX, 50):
        roster.report(0.0, liar, a_report(*(f"junk-{first + n}" for n in range(50))))
    honest = roster.link(0.0, "honest", 2, 1, "owner")
    roster.report(0.0, honest, a_report("real"))
    assert [n.node_id for n, _ in roster.offers("real")] == ["honest"]


def test_a_model_whose_name_made_room_while_it_loaded_is_offered_once_it_serves() -> None:
    roster = Roster()
    honest = roster.link(0.0, "honest", 1, 1, "owner")
    roster.report(0.0, honest, a_report("real", state=State.LOADING))
    for liar in range(MODELS_MAX // 50 + 1):
        node = roster.link(0.0, f"liar-{liar}", 2 + liar, 1, "owner")
        roster.report(0.0, node, a_report(*(f"junk-{liar}-{n}" for n in range(50)), state=State.LOADING))
    assert not roster.knows("real")
    assert "real" in roster.forgotten()
    roster.report(1.0, honest, a_report("real"))
    assert [n.node_id for n, _ in roster.offers("real")] == ["honest"]
    roster.report(2.0, honest, a_report("other"))
    assert not roster.knows("real")


def test_the_nearest_names_are_those_that_are_served_first() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("shark-tiny", "whale"))
    assert roster.nearest("shark-tinny") == ("shark-tiny",)
    assert roster.nearest("zzz") == ()


def test_what_is_known_of_a_node_outlives_its_engines_and_links() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    roster.report(0.0, node, a_report("m"))
    breaker = node.offers["m"].standing.breaker
    breaker.stall(0.0)
    roster.report(1.0, node, a_report("m"))
    assert not breaker.allows(1.0)
    roster.report(2.0, node, a_report("m", life=1))
    assert node.offers["m"].standing.breaker is breaker
    assert not breaker.closed
    assert breaker.allows(2.0), "a new life is probed at once"
    roster.unlink(3.0, node)
    roster.report(4.0, roster.link(4.0, "a", 2, 1, "owner"), a_report("m"))
    assert node.offers["m"].standing.breaker is breaker


def test_each_link_and_each_start_of_an_engine_is_a_life_of_its_own() -> None:
    roster, lives = Roster(), set()
    for link in (1, 2):
        node = roster.link(0.0, "a", link, 1, "owner")
        for life in (0, 1):
            roster.report(0.0, node, a_report("m", life=life))
            lives.add(node.offers["m"].life)
        roster.unlink(0.0, node)
    assert len(lives) == 4


def test_a_node_that_dials_again_after_its_drain_takes_work_again() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    node.draining = True
    assert roster.draining() == [node]
    roster.unlink(0.0, node)
    assert roster.draining() == []
    roster.link(1.0, "a", 2, 2, "owner")
    assert not node.draining


def test_whatever_is_heard_from_a_node_ends_its_silence() -> None:
    roster = Roster()
    node = roster.link(0.0, "a", 1, 1, "owner")
    for hear in (
        lambda: node.heard(1.0),
        lambda: roster.report(1.0, node, a_report("m")),
        lambda: roster.link(1.0, "a", 2, 1, "owner"),
    ):
        node.heard_at, node.quiet = 0.0, True
        hear()
        assert (node.heard_at, node.quiet) == (1.0, False)


def test_what_people_are_shown_of_a_node_outlives_its_link() -> None:
    roster = Roster()
    node = roster.link(1.0, "a", 1, 1, "owner", "192.0.2.1")
    roster.report(2.0, node, replace(a_report("m"), agent_version="0.1.0"))
    roster.unlink(3.0, node, "cut")
    assert (node.name, node.agent_version, node.address, node.linked_at) == ("host", "0.1.0", "192.0.2.1", 1.0)
    assert (node.lost_why, node.since) == ("cut", 3.0)


def test_when_a_model_was_last_asked_for_is_remembered() -> None:
    roster = Roster()
    roster.report(0.0, roster.link(0.0, "a", 1, 1, "owner"), a_report("m"))
    served = roster.served("m")
    assert served is not None
    assert served.asked_at is None
    roster.asked(7.0, "m")
    assert served.asked_at == 7.0


def test_of_many_nodes_without_the_model_the_newest_are_looked_at() -> None:
    roster = Roster()
    for number in range(2 * LOOKED_MAX):
        node = roster.link(0.0, f"n{number}", number, 1, "owner")
        roster.report(0.0, node, a_report("m"))
        roster.unlink(0.0, node)
    assert roster.due_back(1.0, "m")
    assert not roster.due_back(BACK_SECONDS_MAX, "m")
    node = roster.link(11.0, "n0", 9_999, 1, "owner")
    assert roster.due_back(11.0, "m")
    roster.report(11.0, node, a_report("m", state=State.PAUSED))
    assert roster.not_serving("m") == {"paused": 1}
    assert not roster.due_back(11.0, "m")
    kept = replace(a_report("m", state=State.PAUSED), terms=Terms(kept_back="outside its owner's hours"))
    roster.report(11.5, node, kept)
    assert roster.not_serving("m") == {"kept_back": 1}, "nobody who asks changes that"
    roster.report(11.6, node, a_report("m", state=State.PAUSED))
    node.refused = {"m": "it is too large"}
    assert roster.not_serving("m") == {"incompatible": 1}
    roster.report(12.0, node, a_report("m", state=State.LOADING))
    assert roster.due_back(12.0, "m")
    roster.report(13.0, node, a_report("m"))
    assert roster.not_serving("m") == {}
