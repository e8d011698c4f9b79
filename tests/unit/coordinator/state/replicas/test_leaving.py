"""Nodes that leave, fail or come back: what is handed over before, what is replaced after, and what stays as it is."""

from __future__ import annotations

from typing import Any

from shrk_coordinator.state.replicas.facts import Condition
from shrk_coordinator.state.replicas.failures import RETRY_SECONDS
from shrk_coordinator.state.replicas.places import BACK_SECONDS
from shrk_coordinator.state.replicas.reconciler import LOOK_SECONDS, SURPLUS_SECONDS
from support.obedient import LOAD, Obedient, settled


def test_a_link_that_is_back_within_seconds_moves_nothing() -> None:
    network = settled("a")
    before = network.having("a")
    network.lose(before[0])
    network.run(BACK_SECONDS - 2)
    network.change(before[0], linked=True, since=network.now)
    network.run(60)
    assert network.having("a") == before


def test_a_lost_node_is_replaced_and_is_not_needed_when_it_comes_back() -> None:
    network = settled("a")
    lost = network.having("a")[0]
    network.lose(lost)
    network.run(BACK_SECONDS + LOOK_SECONDS + 2)
    assert len(network.having("a")) == 3
    assert lost not in network.having("a")
    before = network.having("a")
    network.condition(lost, "a", Condition.ABSENT)
    network.change(lost, linked=True, since=network.now)
    network.run(2 * SURPLUS_SECONDS)
    assert network.having("a") == before


def leaves(network: Obedient, node: str, **how: Any) -> None:
    """A node is about to leave: nothing is taken from it before its replacement serves, and then all."""
    network.stuck = {"a"}
    network.change(node, **how)
    network.run(LOOK_SECONDS + 2)
    assert len(network.having("a")) == 4, "its replacement is asked while it still serves"
    assert node in network.having("a")
    assert network.redundancy("a").effective_n == 2
    [new] = {n for n, f in network.nodes.items() if f.engines["a"].condition is Condition.LOADING}
    network.run(60)
    assert node in network.having("a")
    network.condition(new, "a", Condition.SERVING)
    network.run(LOOK_SECONDS + 2)
    assert (len(network.having("a")), node in network.having("a")) == (3, False)


def test_a_window_that_closes_is_handed_over_before() -> None:
    network = settled("a")
    node = network.having("a")[0]
    network.change(node, closes_at=network.now + 4_000.0)
    network.run(60)
    assert len(network.having("a")) == 3, "it is too early"
    leaves(network, node, closes_at=network.now + 1.2 * LOAD)


def test_a_node_that_becomes_hot_is_handed_over_before_its_cap() -> None:
    network = settled("a")
    leaves(network, network.having("a")[0], margin=1.5)


def test_a_draining_node_is_handed_over() -> None:
    network = settled("a")
    leaves(network, network.having("a")[0], draining=True)


def test_a_node_is_hot_until_it_is_much_cooler() -> None:
    network = settled("a", nodes=3)
    for margin, effective in ((1.9, 2), (3.0, 2), (4.9, 2), (5.0, 3), (2.1, 3)):
        network.change("n0", margin=margin)
        network.run(LOOK_SECONDS + 1)
        assert network.redundancy("a").effective_n == effective, margin


def test_a_node_that_failed_to_load_is_asked_again_later_and_later() -> None:
    network = settled("a", nodes=3)
    waited = []
    for _ in range(3):
        network.condition("n0", "a", Condition.FAILED)
        network.run()
        assert "n0" not in network.having("a")
        began = network.now
        while "n0" not in network.having("a"):
            network.stuck = {"a"}
            network.run()
        waited.append(network.now - began)
    assert waited[0] >= RETRY_SECONDS - 2
    assert waited[1] > 1.7 * waited[0]
    assert waited[2] > 1.7 * waited[1]


def test_a_replica_that_loads_for_long_is_not_counted_on_and_not_cut_short() -> None:
    network = settled("a", nodes=3)
    network.stuck = {"a"}
    network.node("slow", "a", memory=24)
    network.lose("n0")
    network.run(60)
    assert "slow" in network.having("a")
    told = network.run(3 * LOAD)
    assert not [one for one in told if one.node_id == "slow" and one.models == ()]
