"""Why a model has fewer replicas than it should, and why it is not on one node, as people read it."""

from __future__ import annotations

from dataclasses import replace

from shrk_coordinator.state.replicas.facts import Condition, EngineFacts
from shrk_coordinator.state.replicas.places import BACK_SECONDS
from shrk_coordinator.state.replicas.reconciler import LOOK_SECONDS, START_SECONDS
from support.obedient import GB, LOAD, Obedient, ask, settled


def why(network: Obedient, model: str = "a") -> str:
    return network.reconciler.why_short(network.now, model, lambda node: f"node-{node}")


def why_not(network: Obedient, node: str, model: str = "a") -> str:
    return network.reconciler.why_not_there(network.now, model, node)


def test_where_nothing_is_short_nothing_is_said() -> None:
    network = settled("a")
    assert (why(network), why(network, "unknown")) == ("", "")


def test_a_node_that_was_just_lost_is_told_apart_from_one_that_loads() -> None:
    network = settled("a", nodes=3)
    network.lose("n0")
    network.run(4)
    assert why(network) == (
        "1 of 3 was lost 4 s ago and may be back; 2 nodes that may have it are linked, and 3 are needed"
    )
    network.node("n3", "a")
    network.stuck.add("a")
    network.run(BACK_SECONDS)
    assert why(network) == "1 of 3 was lost 14 s ago; 1 of 3 is loading"


def test_a_node_that_stops_and_one_that_was_stopped_are_not_told_as_lost() -> None:
    network = settled("a", nodes=3)
    network.change("n0", draining=True)
    network.condition("n0", "a", Condition.ABSENT)
    assert why(network) == "node-n0 is stopping"
    network.lose("n0")
    network.run(2)
    assert why(network).startswith("1 of 3 was stopped 2 s ago; ")


def test_how_many_nodes_are_needed_is_said_and_one_node_is_not_told_as_many() -> None:
    assert why(settled("a", nodes=2)) == "2 nodes that may have it are linked, and 3 are needed"
    assert why(settled("a", nodes=1)) == "1 node that may have it is linked, and 3 are needed"


def test_the_pause_after_a_start_is_told() -> None:
    network = Obedient("a")
    for name in ("n0", "n1", "n2"):
        network.node(name, "a")
    network.run(10)
    assert why(network) == (
        f"the coordinator has just started: for another {START_SECONDS - 10:.0f} s it waits for nodes that have it "
        "loaded"
    )
    assert "has just started" in why_not(network, "n1")


def test_of_nodes_without_room_the_one_with_most_is_told_with_what_is_missing() -> None:
    network = settled("a", nodes=2)
    network.node("n2", "a", memory=7)
    engines = {"a": EngineFacts(8 * GB), "b": EngineFacts(2 * GB, Condition.SERVING, network.now)}
    ask(network, "b")
    for name, memory in (("n3", 8), ("n4", 9)):
        network.node(name, "b", serving=("b",), memory=memory)
        network.change(name, engines=engines)
    network.run(2)
    assert why(network) == "it needs 8 GB; node-n4 has 7 GB free and the others no more"
    assert why_not(network, "n2") == "it needs 8 GB, and the node has 7 GB for models"
    assert why_not(network, "n4") == "memory is taken by b: it needs 8 GB, and 7 GB are free"


def test_a_node_that_failed_to_load_it_and_one_that_is_about_to_leave_are_each_told_as_that() -> None:
    network = settled("a", nodes=2)
    network.node("n2", "a")
    network.run()
    engine = network.nodes["n2"].engines["a"]
    broken = replace(engine, condition=Condition.FAILED, since=network.now, reason="its file is cut short")
    network.change("n2", engines={"a": broken})
    network.node("n3", "a", margin=1.0)
    network.run()
    network.change("n2", engines={"a": broken})
    assert why(network) == "loading failed on node-n2, tried again in 59 s; node-n3 is too hot"
    assert why_not(network, "n2") == "loading failed here: its file is cut short; tried again in 59 s"
    assert why_not(network, "n3") == "the node is too hot"
    network.change("n3", margin=20.0, draining=True)
    assert why_not(network, "n3") == "the node is stopping"
    network.change("n3", draining=False, closes_at=network.now + 100.0)
    assert why_not(network, "n3") == "the node closes in 100 s"


def test_a_node_that_is_not_needed_is_told_where_the_copies_are() -> None:
    network = settled("a", nodes=4)
    [spare] = set(network.nodes) - set(network.having("a"))
    assert why_not(network, spare) == "3 copies are elsewhere"
    assert [why_not(network, node) for node in network.having("a")] == ["", "", ""]


def test_what_an_owner_does_not_allow_is_told_as_that() -> None:
    network = settled("a", "b", nodes=3, allowed=frozenset({"a"}))
    assert why_not(network, "n0", "b") == "the node's owner does not allow it"


def test_a_model_that_nobody_asks_for_is_idle() -> None:
    network = settled("a", nodes=3, may_scale_to_zero=True)
    network.run(3_700)
    assert (network.having("a"), why(network)) == ([], "idle: loaded again when somebody asks")
    assert why_not(network, "n0") == "idle: loaded again when somebody asks"
    assert network.redundancy("a").idle


def test_a_load_that_takes_longer_than_usual_is_told_with_how_long_it_takes() -> None:
    network = settled("a", nodes=4)
    network.stuck = {"a"}
    [lost, *_] = network.having("a")
    network.lose(lost)
    network.run(BACK_SECONDS + LOOK_SECONDS)
    assert "1 of 3 is loading" in why(network)
    network.run(4 * LOAD)
    assert "1 of 3 has been loading for" in why(network)
    assert "longer than usual" in why(network)


def test_a_node_that_was_let_go_for_its_failing_requests_is_not_told_as_one_that_failed_to_load() -> None:
    network = settled("a", nodes=4)
    [sick, *_] = network.having("a")
    network.condition(sick, "a", Condition.SICK)
    network.run(LOOK_SECONDS)
    assert sick not in network.having("a")
    assert why_not(network, sick).startswith("requests kept failing here")
