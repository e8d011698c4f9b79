"""One model as the reconciler keeps it: which of many nodes is the best for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shrk_coordinator.state.replicas.domains import Level, Tally
from shrk_coordinator.state.replicas.facts import Condition, EngineFacts, ModelFacts, NodeFacts
from shrk_coordinator.state.replicas.places import Place
from shrk_coordinator.state.replicas.replicas import Replicas

NOW = 10_000.0
PLAIN = NodeFacts(
    "", "", "", "", linked=True, since=0.0, memory=16, engines={"m": EngineFacts(8)}, margin=20.0, closes_at=NOW + 1e5
)


def given(**nodes: NodeFacts) -> Replicas:
    replicas = Replicas(ModelFacts("m", NOW))
    for name, facts in nodes.items():
        owner = facts.owner or name
        replicas.candidate(Place.of(replace(facts, node_id=name, owner=owner, network=f"net-{name}", host="h")))
    return replicas


def best(replicas: Replicas, tally: Tally | None = None, **how: bool) -> str | None:
    place = replicas.best(NOW, tally or Tally(), **how)
    return place.facts.node_id if place else None


@pytest.mark.parametrize(
    "better",
    [
        replace(PLAIN, engines={"m": EngineFacts(8, Condition.SERVING)}),
        replace(PLAIN, memory=24),
        replace(PLAIN, closes_at=None, memory=17),
    ],
)
def test_among_equals_the_better_node_is_taken(better: NodeFacts) -> None:
    assert best(given(a=PLAIN, b=better, c=PLAIN)) == "b"


@pytest.mark.parametrize(
    "worse",
    [
        replace(PLAIN, closes_at=NOW + 1_000.0),
        replace(PLAIN, since=NOW - 10.0),
        replace(PLAIN, margin=3.0),
        replace(PLAIN, linked=False),
        replace(PLAIN, memory=7),
        replace(PLAIN, draining=True),
        replace(PLAIN, allowed=frozenset({"other"})),
    ],
)
def test_the_worse_node_is_not_taken(worse: NodeFacts) -> None:
    assert best(given(a=worse, b=PLAIN)) == "b"


def test_equals_are_taken_by_name() -> None:
    assert best(given(b=PLAIN, a=PLAIN)) == "a"


def test_another_owner_is_worth_more_than_what_is_loaded_already() -> None:
    near = replace(PLAIN, owner="x", engines={"m": EngineFacts(8, Condition.SERVING)})
    assert best(given(a=near, b=PLAIN), Tally([("x", "net", "net/h")])) == "b"


def test_who_failed_comes_behind_who_did_not_whomever_they_belong_to() -> None:
    replicas = given(a=PLAIN, b=replace(PLAIN, owner="x"))
    replicas.candidates["a"].failed("m").happened(NOW - 1_000.0)
    assert best(replicas, Tally([("x", "net", "net/h")])) == "b"


def test_who_has_just_come_is_no_reason_to_move() -> None:
    assert best(given(a=replace(PLAIN, since=NOW - 10.0)), steady=True) is None


def test_what_counts_as_a_domain_follows_from_the_nodes_there_are() -> None:
    replicas = given(a=replace(PLAIN, owner="x"), b=replace(PLAIN, owner="x"), c=replace(PLAIN, owner="x"))
    assert replicas.level is Level.NETWORK
    for name in ("d", "e"):
        replicas.candidate(Place.of(replace(PLAIN, node_id=name, owner=name)))
    assert replicas.level is Level.OWNER
    gone = replicas.candidates["e"]
    gone.take(replace(gone.facts, linked=False))
    replicas.candidate(gone)
    assert replicas.level is Level.NETWORK
