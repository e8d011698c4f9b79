"""One node as the reconciler keeps it: its memory, and when it counts as leaving."""

from __future__ import annotations

from dataclasses import replace

from shrk_coordinator.state.replicas.facts import Condition, EngineFacts, NodeFacts
from shrk_coordinator.state.replicas.places import BACK_SECONDS, CHANGES_MAX, CHANGES_SECONDS, Place, horizon

ABSENT, SERVING = EngineFacts(8), EngineFacts(8, Condition.SERVING)


def facts(**engines: EngineFacts) -> NodeFacts:
    return NodeFacts("n", "o", "net", "h", linked=True, since=0.0, memory=16, engines=engines)


def test_what_was_dropped_takes_memory_until_the_node_has_told_that_it_is_gone() -> None:
    place = Place.of(facts(a=ABSENT, b=SERVING))
    place.adopt(0.0)
    assert place.free == 8
    place.drop("b")
    assert place.free == 8
    place.take(replace(facts(a=ABSENT, b=ABSENT), revision=place.revision - 1))
    assert place.free == 8, "that report is older than the assignment"
    place.take(replace(facts(a=ABSENT, b=SERVING), revision=place.revision))
    assert place.free == 8
    place.take(replace(facts(a=ABSENT, b=ABSENT), revision=place.revision))
    assert place.free == 16


def test_a_model_that_does_not_fit_or_is_of_unknown_size_is_not_permitted() -> None:
    place = Place.of(facts(a=EngineFacts(17), b=EngineFacts(None), c=EngineFacts(16)))
    assert [place.permits(model) for model in "abcd"] == [False, False, True, False]


def test_a_node_leaves_when_its_window_closes_within_the_handover() -> None:
    place = Place.of(replace(facts(), closes_at=1_000.0))
    ahead = horizon(100.0)
    assert not place.leaves(1_000.0 - ahead - 1.0, 100.0)
    assert place.leaves(1_000.0 - ahead, 100.0)
    assert not place.leaves(1_000.0 - ahead, 50.0), "what loads faster is handed over later"


def test_a_lost_link_is_given_time_to_come_back() -> None:
    place = Place.of(replace(facts(), linked=False, since=100.0))
    assert not place.leaves(100.0 + BACK_SECONDS - 1.0, 100.0)
    assert place.leaves(100.0 + BACK_SECONDS, 100.0)


def test_changes_that_nothing_forces_are_counted_for_an_hour() -> None:
    place = Place.of(facts())
    for second in range(CHANGES_MAX):
        assert place.may_change(float(second))
        place.changed(float(second))
    assert not place.may_change(60.0)
    assert place.may_change(CHANGES_SECONDS)
