"""Demand that comes and goes: more replicas for a crowd, none for nobody, and no node that is asked all the time."""

from __future__ import annotations

from shrk_coordinator.state.replicas.demand import IDLE_SECONDS
from shrk_coordinator.state.replicas.facts import Condition
from shrk_coordinator.state.replicas.places import CHANGES_MAX
from shrk_coordinator.state.replicas.reconciler import LOOK_SECONDS
from support.obedient import Obedient, ask, settled


def test_a_model_that_people_queue_for_gets_more_replicas_as_long_as_there_is_room() -> None:
    network = settled("a", "b", nodes=8, memory=8)
    assert (len(network.having("a")), len(network.having("b"))) == (3, 3)
    for _ in range(40):
        ask(network, "a", under_way=12, waiting=50)
        network.run(10)
    assert (len(network.having("a")), len(network.having("b"))) == (5, 3)
    ask(network, "a")
    ask(network, "b")
    network.run(IDLE_SECONDS - 10)
    ask(network, "a")
    ask(network, "b")
    network.run(4_000)
    assert (len(network.having("a")), len(network.having("b"))) == (3, 3)


def test_an_idle_model_is_unloaded_only_where_the_operator_allows_it() -> None:
    network = Obedient("a")
    for number in range(4):
        network.node(f"n{number}", "a", may_scale_to_zero=number > 0)
    network.run(60)
    assert len(network.having("a")) == 3
    network.run(IDLE_SECONDS)
    assert network.having("a") == ["n0"]
    found = network.redundancy("a")
    assert (found.wanted_n, found.degraded) == (1, False)


def test_a_model_that_nobody_has_loaded_comes_back_one_by_one_with_the_first_request() -> None:
    network = settled("a", may_scale_to_zero=True)
    network.run(IDLE_SECONDS)
    assert network.having("a") == []
    assert not network.redundancy("a").degraded
    network.stuck = {"a"}
    ask(network, "a", waiting=1)
    network.run(LOOK_SECONDS + 1)
    [first] = network.having("a")
    network.run(60)
    assert network.having("a") == [first]
    network.stuck = set()
    network.condition(first, "a", Condition.SERVING)
    network.run(LOOK_SECONDS + 1)
    assert len(network.having("a")) == 3


def test_a_node_is_asked_for_few_changes_that_nothing_forces() -> None:
    network = settled("a", "b", nodes=6, memory=8)
    before = len(network.told)
    for minute in range(60):
        crowd = "ab"[minute // 5 % 2]
        ask(network, crowd, under_way=50, waiting=50)
        ask(network, "ba"[minute // 5 % 2])
        network.run(60)
    for node in network.nodes:
        assert sum(one.node_id == node for one in network.told[before:]) <= CHANGES_MAX
