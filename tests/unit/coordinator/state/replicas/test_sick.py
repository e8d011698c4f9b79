"""Replicas at which requests fail though their engines run: replaced where others can, and left where nobody can."""

from __future__ import annotations

from shrk_coordinator.state.replicas.demand import IDLE_SECONDS
from shrk_coordinator.state.replicas.facts import Condition, EngineFacts, ModelFacts
from shrk_coordinator.state.replicas.failures import RETRY_SECONDS
from shrk_coordinator.state.replicas.places import BACK_SECONDS
from shrk_coordinator.state.replicas.reconciler import LOOK_SECONDS, START_SECONDS, SURPLUS_SECONDS
from shrk_coordinator.state.replicas.replicas import SICK_REPLACED_MAX, SICK_REPLACED_SECONDS
from support.obedient import GB, LOAD, Obedient, ask, settled


def sicken(network: Obedient, *nodes: str, model: str = "a") -> None:
    for node in nodes:
        network.condition(node, model, Condition.SICK)


def test_a_sick_replica_is_replaced_before_it_is_let_go_and_is_not_asked_again_at_once() -> None:
    network = settled("a")
    sick, *others = network.having("a")
    network.stuck = {"a"}
    sicken(network, sick)
    network.run(2)
    assert len(network.having("a")) == 4
    found = network.redundancy("a")
    assert (found.effective_n, found.degraded) == (2, True)
    assert network.reconciler.why_short(network.now, "a", str) == "1 of 3 is loading"
    network.run(60)
    assert sick in network.having("a")
    [new] = set(network.having("a")) - {sick, *others}
    network.condition(new, "a", Condition.SERVING)
    network.run(2)
    assert network.having("a") == sorted([new, *others])
    assert not network.redundancy("a").degraded
    network.lose(others[0])
    network.run(BACK_SECONDS + LOOK_SECONDS)
    assert sick not in network.having("a")
    network.run(RETRY_SECONDS)
    assert sick in network.having("a"), "it is asked again later, where nobody else is left"


def test_a_sick_replica_stays_where_nobody_can_replace_it() -> None:
    for nodes in (1, 3):
        network = settled("a", nodes=nodes)
        sicken(network, "n0")
        assert network.run(SICK_REPLACED_SECONDS / 2) == []
        found = network.redundancy("a")
        assert (found.effective_n, found.feasible_n) == (nodes - 1, nodes - 1)


def test_a_replica_that_recovers_moves_nothing() -> None:
    network = settled("a", nodes=3)
    for _ in range(5):
        sicken(network, "n0")
        assert network.run(60) == []
        network.condition("n0", "a", Condition.SERVING)
        assert network.run(60) == []
    assert not network.redundancy("a").degraded


def test_a_replica_that_recovers_while_another_loads_is_one_too_many_for_a_while() -> None:
    network = settled("a")
    network.stuck = {"a"}
    [sick, *_] = network.having("a")
    sicken(network, sick)
    network.run(2)
    network.condition(sick, "a", Condition.SERVING)
    for node in network.having("a"):
        network.condition(node, "a", Condition.SERVING)
    assert network.run(SURPLUS_SECONDS - 60) == []
    network.run(120)
    assert len(network.having("a")) == 3


def test_as_many_of_several_sick_replicas_are_let_go_as_have_been_replaced() -> None:
    network = settled("a")
    sick, other, _ = network.having("a")
    sicken(network, other)
    network.now += 1.0
    sicken(network, sick)
    network.run(LOOK_SECONDS)
    assert len(network.having("a")) == 3
    assert other not in network.having("a"), "it has been sick for longer"
    assert sick in network.having("a")


def test_a_model_that_fails_everywhere_does_not_go_through_all_nodes() -> None:
    network = settled("a", nodes=40)
    hours, loads = 4, 0
    for _ in range(int(hours * SICK_REPLACED_SECONDS / 100)):
        before = set(network.having("a"))
        ask(network, "a", waiting=3)
        sicken(network, *before)
        network.run(100)
        loads += len(set(network.having("a")) - before)
    assert SICK_REPLACED_MAX <= loads <= hours * SICK_REPLACED_MAX
    why = network.reconciler.why_short(network.now, "a", str)
    assert "no more than 3 nodes at which its requests fail are replaced in an hour" in why


def test_nodes_that_fall_sick_together_are_replaced_together() -> None:
    network = settled("a", nodes=6)
    sick = network.having("a")
    sicken(network, *sick)
    network.run(LOOK_SECONDS)
    assert len(network.having("a")) == 3
    assert not set(sick) & set(network.having("a"))


def test_a_node_that_is_lost_is_replaced_whatever_was_sick_before() -> None:
    network = settled("a", nodes=12)
    for _ in range(3):
        sicken(network, network.having("a")[0])
        network.run(LOOK_SECONDS)
    sick, lost, _ = network.having("a")
    sicken(network, sick)
    network.run(LOOK_SECONDS)
    assert sick in network.having("a")
    network.lose(lost)
    network.run(BACK_SECONDS + LOOK_SECONDS + 2)
    assert len([node for node in network.having("a") if node != lost]) == 3


def test_a_sick_replica_that_goes_away_is_replaced_as_any_other() -> None:
    for how in ({"closes_at": 1_100.0}, {"draining": True}, {"margin": 1.0}):
        network = settled("a")
        sick = network.having("a")[0]
        sicken(network, sick)
        network.change(sick, **how)
        network.run(LOOK_SECONDS)
        assert (len(network.having("a")), sick in network.having("a")) == (3, False)


def test_a_sick_replica_whose_link_is_lost_is_as_it_was_when_it_is_back() -> None:
    network = settled("a", nodes=3)
    sicken(network, "n0")
    network.run(2)
    network.lose("n0")
    network.run(BACK_SECONDS + 60)
    network.change("n0", linked=True, since=network.now)
    network.run(LOOK_SECONDS)
    assert network.having("a") == ["n0", "n1", "n2"]
    network.node("n3", "a")
    network.run(LOOK_SECONDS)
    assert network.having("a") == ["n1", "n2", "n3"]


def test_an_idle_model_is_unloaded_where_it_is_sick_as_well_as_where_it_is_not() -> None:
    network = settled("a", may_scale_to_zero=True)
    sicken(network, *network.having("a")[:2])
    network.stuck = {"a"}
    network.run(IDLE_SECONDS + LOOK_SECONDS)
    for node, facts in network.nodes.items():
        if facts.engines["a"].condition is Condition.LOADING:
            network.condition(node, "a", Condition.SERVING)
    network.run(LOOK_SECONDS)
    assert network.having("a") == []


def test_a_coordinator_that_has_just_started_gives_sick_replicas_their_time() -> None:
    network = Obedient("a")
    for number in range(3):
        network.node(f"n{number}", "a", serving=("a",), revision=7)
    network.node("n3", "a")
    sicken(network, "n0")
    network.run(START_SECONDS - 5)
    assert network.having("a") == ["n0", "n1", "n2"]
    network.run(60)
    assert network.having("a") == ["n1", "n2", "n3"]


def test_a_model_without_a_replica_takes_the_room_of_one_of_several_that_are_sick() -> None:
    network = settled("a", nodes=2, memory=8)
    sicken(network, "n0", "n1")
    network.reconciler.model(network.now, ModelFacts("b", network.now, load_seconds=LOAD))
    for node in ("n0", "n1"):
        network.change(node, engines=network.nodes[node].engines | _absent(network))
    network.run(60)
    assert (len(network.having("a")), len(network.having("b"))) == (1, 1)
    sicken(network, network.having("b")[0], model="b")
    assert network.run(SICK_REPLACED_SECONDS) == [], "they do not take turns"


def _absent(network: Obedient) -> dict[str, EngineFacts]:
    return {"b": EngineFacts(8 * GB, since=network.now)}


def test_a_sick_engine_that_nobody_asked_for_is_not_asked() -> None:
    network = settled("a", nodes=3)
    network.node("n3", "a")
    network.run(2)
    sicken(network, "n3")
    network.lose("n0")
    network.run(BACK_SECONDS + 60)
    assert "n3" not in network.having("a")
