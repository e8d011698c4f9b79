"""Placement: feasible, then rank, then choose."""

from __future__ import annotations

from dataclasses import replace

from shrk_contract.terms import Endpoint, Pin
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.nowhere import NotThatKind, Nowhere
from shrk_coordinator.state.placement import CHOICES, Reason, Wish, place, why_not, why_nowhere
from shrk_coordinator.state.roster import LOOKED_MAX, Roster
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.speed import Speed
from support.states import CHAT, DICE, OTHER_PIN, PIN, a_report

WISH = Wish("m", CHAT)


def a_roster(*nodes: str, pin: Pin = PIN, slots: int = 4) -> Roster:
    roster = Roster()
    for node_id in nodes:
        add(roster, node_id, pin, slots)
    return roster


def add(roster: Roster, node_id: str, pin: Pin = PIN, slots: int = 4) -> None:
    node = roster.link(0.0, node_id, len(roster.nodes) + 1, 1, "owner")
    roster.report(0.0, node, a_report("m", pin=pin, slots=slots))


def offer_of(roster: Roster, node_id: str) -> Offer:
    return roster.nodes[node_id].offers["m"]


def lives(roster: Roster, *nodes: str) -> set[EngineLife]:
    return {offer_of(roster, node).life for node in nodes}


def placed(roster: Roster, wish: Wish = WISH) -> str:
    placed = place(roster, wish, DICE)
    assert placed is not None
    return placed.node.node_id


def test_every_reason_not_to_ask_a_node_has_a_name() -> None:
    roster = a_roster("a")
    node, offer = next(iter(roster.offers("m")))
    assert why_not(node, offer, WISH) is None
    assert why_not(node, offer, Wish("m", CHAT, pin=PIN)) is None
    assert why_not(node, offer, Wish("m", CHAT, tried={offer.life})) is Reason.TRIED
    assert why_not(node, offer, Wish("m", Endpoint.EMBEDDINGS)) is Reason.ENDPOINT
    assert why_not(node, offer, Wish("m", CHAT, pin=OTHER_PIN)) is Reason.PIN
    node.kept_back = True
    assert why_not(node, offer, WISH) is Reason.KEPT_BACK
    node.margin, node.closes_at = 1.0, 0.0  # what is hot closes at once, and is not wanted back by its owner
    assert why_not(node, offer, WISH) is Reason.HOT
    node.draining = True
    assert why_not(node, offer, WISH) is Reason.DRAINING


def test_an_engine_that_was_tried_is_not_asked_again_and_its_next_life_is() -> None:
    roster = a_roster("a", "b")
    tried = lives(roster, "a")
    assert placed(roster, Wish("m", CHAT, tried=tried)) == "b"
    roster.report(1.0, roster.nodes["a"], a_report("m", pin=PIN, life=1))
    offer_of(roster, "b").in_flight = 1
    assert placed(roster, Wish("m", CHAT, tried=tried)) == "a"


def test_only_an_engine_of_the_same_kind_is_placed_where_it_must_be() -> None:
    roster = a_roster("a", "b")
    add(roster, "other", OTHER_PIN)
    assert placed(roster, Wish("m", CHAT, pin=OTHER_PIN)) == "other"
    assert why_nowhere(roster, Wish("m", CHAT, tried=lives(roster, "other"), pin=OTHER_PIN)) == Nowhere(
        (("already_tried", 1), ("another_pin", 2))
    )


def test_one_that_has_just_stalled_is_asked_last_however_idle_it_is() -> None:
    roster = a_roster("a", "b")
    offer_of(roster, "a").standing.breaker.stall(0.0)
    offer_of(roster, "b").in_flight = 3
    assert placed(roster) == "b"
    assert placed(roster, Wish("m", CHAT, tried=lives(roster, "b"))) == "a"


def test_one_that_is_not_heard_is_asked_last_until_it_is_heard() -> None:
    roster = a_roster("a", "b")
    roster.nodes["a"].quiet = True
    offer_of(roster, "b").in_flight = 3
    assert placed(roster) == "b"
    assert placed(roster, Wish("m", CHAT, tried=lives(roster, "b"))) == "a"
    roster.nodes["a"].heard(1.0)
    assert placed(roster) == "a"


def test_when_there_is_nobody_to_ask_the_reasons_are_counted() -> None:
    roster = a_roster("a", "b")
    assert why_nowhere(roster, Wish("m", CHAT, tried=lives(roster, "a", "b"))) == Nowhere((("already_tried", 2),))
    assert why_nowhere(a_roster(), WISH) == Nowhere(())


def test_a_model_of_another_kind_is_not_merely_busy() -> None:
    assert why_nowhere(a_roster("a"), Wish("m", Endpoint.EMBEDDINGS)) == NotThatKind((CHAT,))


def many(roster: Roster, full: int) -> None:
    """So many nodes that have no room."""
    for number in range(full):
        add(roster, f"full-{number:04}")
        offer_of(roster, f"full-{number:04}").outside = 100


def test_one_free_node_among_hundreds_is_found_though_not_at_once() -> None:
    roster = a_roster()
    many(roster, 4 * LOOKED_MAX - 1)
    add(roster, "free")
    found = [place(roster, WISH, DICE) for _ in range(4)]
    assert "free" in [placed.node.node_id for placed in found if placed is not None]


def test_of_many_that_cannot_be_asked_some_are_counted() -> None:
    roster = a_roster()
    many(roster, 2 * LOOKED_MAX)
    assert why_nowhere(roster, WISH) == Nowhere((("busy", LOOKED_MAX),))


def test_nobody_is_told_for_good_what_is_true_of_some_only() -> None:
    roster = a_roster()
    many(roster, 2 * LOOKED_MAX)
    node = roster.link(0.0, "other", 9_999, 1, "owner")
    roster.report(0.0, node, a_report("m", endpoints=(Endpoint.EMBEDDINGS,)))
    assert isinstance(why_nowhere(roster, Wish("m", Endpoint.EMBEDDINGS)), Nowhere)
    assert why_nowhere(roster, Wish("m", Endpoint.SCORE)) == NotThatKind((CHAT, Endpoint.EMBEDDINGS))


def a_talk(roster: Roster, home: str) -> Wish:
    """A turn of a conversation that is at home at this node."""
    talks = (Wish("m", CHAT, affinity=affinity) for affinity in range(1, 1_000))
    return next(talk for talk in talks if next(roster.homes("m", talk.affinity, CHOICES))[0].node_id == home)


def test_a_conversation_stays_where_it_is_at_home() -> None:
    roster = a_roster("a", "b", "c")
    for home in "abc":
        talk = a_talk(roster, home)
        offer_of(roster, home).placed = 50
        assert [placed(roster, talk) for _ in range(3)] == [home] * 3


def test_a_conversation_leaves_its_home_while_others_are_much_less_loaded_and_goes_to_its_second_one() -> None:
    roster = a_roster("a", "b", "c", slots=16)
    talk = a_talk(roster, "a")
    second = [node.node_id for node, _ in roster.homes("m", talk.affinity, CHOICES)][1]
    offer_of(roster, "a").in_flight = 6
    assert placed(roster, talk) == "a"
    offer_of(roster, "a").in_flight = 12
    assert placed(roster, talk) == second
    for busy in "bc":
        offer_of(roster, busy).in_flight = 12
    assert placed(roster, talk) == "a"


def test_a_conversation_leaves_a_home_that_is_slow_or_full_or_failing_and_comes_back() -> None:
    roster = a_roster("a", "b", "c")
    talk = a_talk(roster, "a")
    served = roster.served("m")
    assert served is not None
    served.usual.first_token(0.1)
    offer_of(roster, "a").standing.speed.first_token(0.0, 1.0, served.usual)
    assert placed(roster, talk) != "a"
    offer_of(roster, "a").standing.speed = Speed()
    assert placed(roster, talk) == "a"
    offer_of(roster, "a").outside = 99
    assert placed(roster, talk) != "a"
    offer_of(roster, "a").outside = 0
    for _ in range(3):
        offer_of(roster, "a").standing.breaker.failed(0.0)
    assert placed(roster, talk) != "a"
    offer_of(roster, "a").standing.breaker.spoke()
    assert placed(roster, talk) == "a"


def test_a_conversation_may_be_the_probe_of_another_node_than_its_home() -> None:
    roster = a_roster("a", "b", "c")
    breaker = offer_of(roster, "b").standing.breaker
    breaker.stall(0.0)
    talk = replace(a_talk(roster, "a"), probes=True, now=breaker.open_until)
    assert placed(roster, talk) == "b"


def test_among_hundreds_of_nodes_a_conversation_has_one_home() -> None:
    roster = a_roster(*(f"n{number:03}" for number in range(300)))
    talk = Wish("m", CHAT, affinity=12_345)
    assert len({placed(roster, talk) for _ in range(20)}) == 1
    assert len({placed(roster) for _ in range(20)}) > 1


def test_of_the_slots_that_are_looked_at_those_count_that_come_free() -> None:
    roster = a_roster("busy", "failing")
    add(roster, "large", slots=8)
    for node in ("busy", "large"):
        offer_of(roster, node).outside = 100
    offer_of(roster, "failing").standing.breaker.stall(0.0)
    offer_of(roster, "failing").standing.breaker.stalled = False
    nowhere = why_nowhere(roster, WISH)
    assert isinstance(nowhere, Nowhere)
    assert nowhere.busy_share == 12 / 16


def test_of_answers_that_are_all_quick_the_quickest_node_does_not_get_all() -> None:
    roster = a_roster("a", "b")
    served = roster.served("m")
    assert served is not None
    served.usual.first_token(0.01)
    offer_of(roster, "a").standing.speed.first_token(0.0, 0.002, served.usual)
    offer_of(roster, "a").placed = 1
    assert placed(roster) == "b"
    served.usual.first = 1.0
    assert placed(roster) == "a"
