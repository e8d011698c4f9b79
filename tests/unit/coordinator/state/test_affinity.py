"""Affinity: where conversations are at home."""

from __future__ import annotations

from collections import Counter

from shrk_coordinator.state.affinity import NO_AFFINITY, Ring, digest

TALKS = [digest(b"key", str(number).encode()) for number in range(3_000)]


def a_ring(nodes: int) -> Ring:
    ring = Ring()
    for number in range(nodes):
        ring.add(f"node_{number}")
    return ring


def homes(ring: Ring, count: int = 16) -> dict[int, str]:
    return {talk: ring.homes(talk, count)[0] for talk in TALKS}


def test_what_is_told_apart_by_its_parts_has_another_affinity() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"ab", b"c") == digest(b"ab", b"c") != NO_AFFINITY


def test_conversations_are_spread_evenly_over_few_nodes() -> None:
    counts = Counter(homes(a_ring(3)).values())
    assert all(900 < counts[node] < 1_100 for node in ("node_0", "node_1", "node_2"))


def test_a_node_that_goes_moves_only_its_own_conversations_and_gets_them_back_when_it_returns() -> None:
    ring = a_ring(5)
    before = homes(ring)
    ring.remove("node_3")
    without = homes(ring)
    assert all(without[talk] == home for talk, home in before.items() if home != "node_3")
    assert set(without.values()) == {"node_0", "node_1", "node_2", "node_4"}
    ring.add("node_3")
    assert homes(ring) == before


def test_the_second_home_of_a_conversation_is_where_it_would_be_without_the_first() -> None:
    ring = a_ring(5)
    seconds = {talk: ring.homes(talk, 16)[1] for talk in TALKS if ring.homes(talk, 16)[0] == "node_0"}
    ring.remove("node_0")
    assert all(ring.homes(talk, 16)[0] == home for talk, home in seconds.items())


def test_of_many_nodes_a_conversation_looks_at_a_few_and_a_newcomer_moves_hardly_any() -> None:
    ring = a_ring(1_000)
    before = homes(ring)
    assert len(ring.homes(TALKS[0], 16)) == 16
    assert len(set(before.values())) > 500
    ring.add("newcomer")
    after = homes(ring)
    moved = [talk for talk in TALKS if after[talk] != before[talk]]
    assert len(moved) < 30


def test_two_coordinators_that_met_the_nodes_in_another_order_agree() -> None:
    other = Ring()
    for number in reversed(range(200)):
        other.add(f"node_{number}")
    assert homes(a_ring(200)) == homes(other)


def test_an_empty_ring_is_nobodys_home() -> None:
    assert Ring().homes(TALKS[0], 16) == []
