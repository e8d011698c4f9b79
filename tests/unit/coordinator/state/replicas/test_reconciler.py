"""The replica reconciler: who is asked to load what, and what is never asked."""

from __future__ import annotations

from shrk_coordinator.state.replicas.facts import Assignment, EngineFacts, ModelFacts
from shrk_coordinator.state.replicas.reconciler import SURPLUS_SECONDS
from support.obedient import GB, Obedient, settled


def test_every_model_gets_three_replicas_of_three_owners() -> None:
    network = Obedient("a", "b")
    for number, owner in enumerate("xxxxyz"):
        network.node(f"n{number}", "a", "b", owner=owner)
    network.run(60)
    for model in ("a", "b"):
        assert {network.nodes[node].owner for node in network.having(model)} == {"x", "y", "z"}
        found = network.redundancy(model)
        assert (found.effective_n, found.wanted_n, found.degraded, found.domain) == (3, 3, False, "owner")


def test_one_owner_is_spread_over_networks_and_hosts() -> None:
    network = Obedient("a")
    for number in range(6):
        network.node(f"n{number}", "a", owner="x", network=f"net-{number // 4}", host=f"h{number % 4}")
    network.run(60)
    having = [network.nodes[node] for node in network.having("a")]
    assert {node.network for node in having} == {"net-0", "net-1"}
    assert len({(node.network, node.host) for node in having}) == 3
    assert network.redundancy("a").domain == "host"


def test_three_nodes_on_one_host_all_serve_and_are_called_degraded() -> None:
    network = settled("a", nodes=3, owner="x", network="net", host="h")
    found = network.redundancy("a")
    assert (len(network.having("a")), found.effective_n, found.degraded) == (3, 1, True)
    why = network.reconciler.why_short(network.now, "a", str)
    assert why == "its nodes share 1 host, where 3 are wanted, and those that may have it are on no more than 1"


def test_fewer_nodes_than_three_are_used_and_not_refused() -> None:
    network = settled("a", nodes=2)
    found = network.redundancy("a")
    assert network.having("a") == ["n0", "n1"]
    assert (found.effective_n, found.wanted_n, found.feasible_n, found.degraded) == (2, 3, 2, True)


def test_memory_is_never_given_twice_and_is_shared_evenly() -> None:
    network = settled("a", "b", "c", nodes=3, memory=16)
    assert sorted(len(network.having(model)) for model in "abc") == [2, 2, 2]
    assert all(len(one.models) <= 2 for one in network.told)


def test_what_an_owner_does_not_allow_is_not_assigned_and_is_dropped_at_once() -> None:
    network = settled("a", "b", nodes=3, allowed=frozenset({"a"}))
    assert (len(network.having("a")), network.having("b")) == (3, [])
    network.change("n0", allowed=frozenset({"b"}))
    network.run()
    assert "n0" not in network.having("a")
    assert network.having("b") == ["n0"]


def test_a_model_that_comes_late_is_made_room_for_by_those_that_have_two_more() -> None:
    network = settled("a", nodes=3, memory=8)
    network.reconciler.model(network.now, ModelFacts("b", network.now))
    for node in list(network.nodes):
        engines = dict(network.nodes[node].engines) | {"b": EngineFacts(8 * GB)}
        network.change(node, engines=engines)
    network.run(30)
    assert (len(network.having("a")), len(network.having("b"))) == (2, 1)
    revisions = {node: network.reconciler.assignment(node) for node in network.nodes}
    network.run(300)
    assert {node: network.reconciler.assignment(node) for node in network.nodes} == revisions


def test_a_coordinator_that_has_just_started_asks_for_one_replica_until_its_nodes_are_back() -> None:
    network = Obedient("a")
    network.node("n0", "a")
    network.node("n1", "a")
    network.run(20)
    assert len(network.having("a")) == 1
    for number in range(2, 5):
        network.node(f"n{number}", "a", serving=("a",), revision=7)
    network.run(60)
    assert {"n2", "n3", "n4"} <= set(network.having("a"))


def test_what_nodes_have_loaded_stays_and_its_revision_is_above_what_they_know() -> None:
    network = Obedient("a", "b")
    for number in range(3):
        network.node(f"n{number}", "a", "b", serving=("a",), memory=8, revision=41)
    network.run(5)
    assert network.having("a") == ["n0", "n1", "n2"]
    assert all(one.revision == 42 for one in network.told)
    assert network.having("b") == [], "its own nodes may not be back yet"


def test_a_revision_grows_with_each_change_and_only_then() -> None:
    network = settled("a", "b")
    network.lose("n0")
    network.run(700)
    last: dict[str, Assignment] = {}
    for one in network.told:
        known = last.get(one.node_id)
        assert known is None or (one.revision > known.revision) is (one.models != known.models)
        last[one.node_id] = one


def test_replicas_of_one_owner_move_apart_when_others_join() -> None:
    network = settled("a", nodes=3, owner="x")
    for name in ("y", "z"):
        network.node(name, "a", owner=name)
    network.run(60)
    assert network.having("a") == ["n0", "n1", "n2"], "who has just come may go again"
    network.run(3 * SURPLUS_SECONDS)
    assert len(network.having("a")) == 3
    assert network.redundancy("a").effective_n == 3


def test_a_model_that_is_retired_is_unloaded_everywhere() -> None:
    network = settled("a", "b")
    network.reconciler.retire("a")
    network.run(30)
    assert network.having("a") == []
    assert len(network.having("b")) == 3
    assert network.reconciler.redundancy("a") is None


def test_memory_that_shrinks_takes_no_more_than_must_be() -> None:
    network = settled("a", "b", nodes=3)
    network.change("n0", memory=8 * GB)
    network.run()
    given = network.reconciler.assignment("n0")
    assert given is not None
    assert len(given.models) == 1


def test_the_same_facts_lead_to_the_same_assignments() -> None:
    runs = []
    for _ in range(2):
        network = settled("a", "b", "c", nodes=7, memory=16)
        network.lose("n3")
        network.run(300)
        runs.append(network.told)
    assert runs[0] == runs[1]
