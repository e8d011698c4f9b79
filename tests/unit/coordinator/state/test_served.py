"""One model: who offers it, who may be asked for more, and how soon places come free."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from shrk_contract.terms import EngineReport, State, Status
from shrk_coordinator.state.served import AHEAD, Offer, Served

ENGINE = EngineReport("m", "m", Status(State.ONLINE), slots=8)


def an_offer(node: str = "a", slots: int = 8) -> Offer:
    return Offer(node, 1, replace(ENGINE, slots=slots))


def test_it_has_room_until_its_slots_are_taken_and_what_comes_next_is_on_its_way() -> None:
    offer = an_offer()
    for _ in range(8 + 8 // AHEAD):
        assert offer.has_room(queues=False)
        offer.began(0.0)
    assert not offer.has_room(queues=False)
    assert offer.has_room(queues=True)
    offer.ended()
    assert offer.has_room(queues=False)


def test_what_a_node_counts_beyond_ours_is_the_work_of_others() -> None:
    offer = an_offer()
    offer.began(0.0)
    offer.reported(replace(ENGINE, running=4, waiting=2))
    assert (offer.outside, offer.live) == (5, 6)
    offer.reported(replace(ENGINE, running=1))
    assert (offer.outside, offer.live) == (0, 1)


def test_what_has_just_ended_is_not_taken_for_the_work_of_others() -> None:
    offer = an_offer()
    for _ in range(4):
        offer.began(0.0)
    for _ in range(4):
        offer.ended()
    offer.reported(replace(ENGINE, running=4))
    assert offer.live == 0


def test_of_many_some_are_drawn_and_in_the_long_run_all() -> None:
    served, dice = Served(), random.Random(1)
    for number in range(100):
        served.add(an_offer(f"n{number}"))
    drawn = [offer.node_id for _ in range(200) for offer in served.some(5, dice)]
    assert len(drawn) == 1_000
    assert len(set(drawn)) == 100
    assert len(list(served.some(100, dice))) == 100


def test_whoever_comes_and_goes_is_drawn_only_while_it_is_there() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    served, dice, there = Served(), random.Random(seed), set[str]()
    for _ in range(2_000):
        node = f"n{dice.randrange(40)}"
        if node in there:
            served.remove(node)
            there.remove(node)
        else:
            served.add(an_offer(node))
            there.add(node)
        assert {offer.node_id for offer in served.some(3, dice)} <= there
        assert served.offers.keys() == there


def test_places_come_free_as_fast_as_answers_take_long() -> None:
    served = Served()
    assert served.freed_per_second == 0
    served.add(an_offer("a", slots=8))
    served.add(an_offer("b", slots=2))
    served.answered(5.0)
    assert served.freed_per_second == pytest.approx(2.0)
    served.reported(served.offers["b"], replace(ENGINE, slots=12))
    assert served.freed_per_second == pytest.approx(4.0)
    served.remove("a")
    assert served.freed_per_second == pytest.approx(2.4)


def test_those_looked_at_in_turn_are_in_the_end_all_of_them() -> None:
    served = Served()
    for number in range(10):
        served.add(an_offer(f"n{number}"))
    looked = [offer.node_id for _ in range(5) for offer in served.next(4)]
    assert sorted(looked) == sorted([f"n{number}" for number in range(10)] * 2)
    assert len(list(served.next(10))) == 10


def test_going_round_survives_that_some_have_left_meanwhile() -> None:
    served = Served()
    for number in range(10):
        served.add(an_offer(f"n{number}"))
    list(served.next(9))
    for number in range(2, 10):
        served.remove(f"n{number}")
    assert [offer.node_id for offer in served.next(1)] == ["n1"]


def test_whoever_does_not_offer_it_any_more_is_remembered_until_it_does() -> None:
    served = Served()
    for node in ("a", "b", "a"):
        served.add(an_offer(node))
    for node in ("b", "a"):
        served.remove(node)
    assert list(served.away) == ["b", "a"]
    served.add(an_offer("b"))
    assert list(served.away) == ["a"]


def test_slots_are_counted_as_nodes_come_change_and_go() -> None:
    served = Served()
    served.answered(1.0)
    first = an_offer("a", slots=8)
    for offer in (first, an_offer("b", slots=2), an_offer("b", slots=3)):
        served.add(offer)
    assert served.freed_per_second == 11
    served.reported(first, replace(ENGINE, slots=5))
    assert served.freed_per_second == 8
    served.remove("b")
    assert served.freed_per_second == 5
