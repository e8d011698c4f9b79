"""A reconciler with nodes that do what they are told, second by second, for tests that look at what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shrk_coordinator.state.replicas.facts import (
    LOADED,
    Assignment,
    Condition,
    EngineFacts,
    ModelFacts,
    NodeFacts,
    Redundancy,
)
from shrk_coordinator.state.replicas.reconciler import Reconciler

GB = 1 << 30
#: What loading takes, by all that the reconciler knows.
LOAD = 100.0


class Obedient:
    """A reconciler and nodes that obey at once, second by second; a load takes no time unless told so."""

    def __init__(self, *models: str) -> None:
        self.now = 1_000.0
        self.reconciler = Reconciler(self.now)
        self.nodes: dict[str, NodeFacts] = {}
        self.told: list[Assignment] = []
        #: Models that do not get beyond loading.
        self.stuck: set[str] = set()
        for model in models:
            self.reconciler.model(self.now, ModelFacts(model, self.now, load_seconds=LOAD))

    def node(self, node_id: str, *models: str, serving: tuple[str, ...] = (), memory: int = 24, **facts: Any) -> None:
        """A node is linked; a model takes 8 GB."""
        engines = {
            m: EngineFacts(8 * GB, Condition.SERVING if m in serving else Condition.ABSENT, self.now) for m in models
        }
        given = {"owner": f"owner-of-{node_id}", "network": f"net-of-{node_id}", "host": node_id} | facts
        self.tell(NodeFacts(node_id, linked=True, since=self.now, memory=memory * GB, engines=engines, **given))

    def tell(self, facts: NodeFacts) -> None:
        self.nodes[facts.node_id] = facts
        self.reconciler.node(self.now, facts)

    def change(self, node_id: str, **changes: Any) -> None:
        self.tell(replace(self.nodes[node_id], **changes))

    def condition(self, node_id: str, model: str, condition: Condition) -> None:
        engines = dict(self.nodes[node_id].engines)
        engines[model] = replace(engines[model], condition=condition, since=self.now)
        self.change(node_id, engines=engines)

    def lose(self, node_id: str) -> None:
        self.change(node_id, linked=False, since=self.now)

    def run(self, seconds: float = 1.0) -> list[Assignment]:
        """Let time pass; what was assigned."""
        told = []
        for _ in range(int(seconds)):
            self.now += 1.0
            for assignment in self.reconciler.run(self.now):
                told.append(assignment)
                self._obey(assignment)
        self.told += told
        return told

    def _obey(self, assignment: Assignment) -> None:
        facts = self.nodes[assignment.node_id]
        engines = dict(facts.engines)
        for model, engine in facts.engines.items():
            there = Condition.LOADING if model in self.stuck else Condition.SERVING
            if model in assignment.models and engine.condition not in LOADED:
                engines[model] = replace(engine, condition=there, since=self.now)
            elif model not in assignment.models:
                engines[model] = replace(engine, condition=Condition.ABSENT)
        if facts.linked:
            self.tell(replace(facts, engines=engines, revision=assignment.revision))

    def having(self, model: str) -> list[str]:
        """Nodes that should have it."""
        assignments = {n: self.reconciler.assignment(n) for n in self.nodes}
        return sorted(node for node, given in assignments.items() if given and model in given.models)

    def redundancy(self, model: str) -> Redundancy:
        found = self.reconciler.redundancy(model)
        assert found is not None
        return found


def settled(*models: str, nodes: int = 4, **facts: Any) -> Obedient:
    """Some nodes of owners of their own, half a minute after all came."""
    network = Obedient(*models)
    for number in range(nodes):
        network.node(f"n{number}", *models, **facts)
    network.run(60)
    return network


def ask(network: Obedient, model: str, **facts: Any) -> None:
    given = {"asked_at": network.now, "load_seconds": LOAD} | facts
    network.reconciler.model(network.now, ModelFacts(model, **given))
