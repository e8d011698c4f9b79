"""Failure domains: what counts as distinct, and what one more or one less would change."""

from __future__ import annotations

from shrk_coordinator.state.replicas.domains import Level, Tally, domains_of
from shrk_coordinator.state.replicas.facts import NodeFacts


def test_machines_of_the_same_name_in_two_networks_are_two_hosts() -> None:
    one, other = (NodeFacts("n", "o", net, "gpu-box", linked=True, since=0.0, memory=0) for net in ("1", "2"))
    assert domains_of(one)[Level.HOST] != domains_of(other)[Level.HOST]


def test_a_tally_counts_distinct_domains_of_each_kind() -> None:
    tally = Tally([("o", "1", "1/a"), ("o", "1", "1/b"), ("p", "1", "1/c")])
    assert tally.spread(3) == (2, 1, 3)
    assert tally.gain(("q", "1", "1/c")) == (1, 0, 0)
    assert tally.spread_without(("p", "1", "1/c"), 3) == (1, 1, 2)
    assert tally.level(3) is Level.HOST
    assert tally.level(2) is Level.OWNER


def test_what_is_removed_is_not_counted() -> None:
    tally = Tally([("o", "1", "1/a"), ("o", "1", "1/b")])
    tally.remove(("o", "1", "1/a"))
    assert (tally.nodes, tally.spread(3)) == (1, (1, 1, 1))
    tally.remove(("o", "1", "1/b"))
    assert (tally.nodes, tally.spread(3)) == (0, (0, 0, 0))
