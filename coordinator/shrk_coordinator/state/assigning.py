"""Which node loads which model: the reconciler, told what the roster knows, and its assignments as effects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from shrk_contract.terms import SERVING, EngineReport, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.replicas.facts import (
    LOAD_SECONDS,
    Condition,
    EngineFacts,
    ModelFacts,
    NodeFacts,
    Redundancy,
)
from shrk_coordinator.state.replicas.reasons import NodeName
from shrk_coordinator.state.replicas.reconciler import Reconciler
from shrk_coordinator.state.roster import COMING, Node, Roster
from shrk_coordinator.state.waiting import Waiting

#: A node that tells no bound has room for all that its owner allows.
UNBOUNDED_BYTES = 1 << 62
#: Loading takes so long for the reconciler, however quick it was: who is a little late is not given up.
LOAD_SECONDS_MIN = 30.0


class Assigning:
    """Feeds the reconciler, and tells nodes what it decides."""

    def __init__(self, roster: Roster, waiting: Waiting, term: int) -> None:
        """`term`: grows with every start of a coordinator, so that nodes obey the newest."""
        self._roster = roster
        self._waiting = waiting
        self._term = term
        self._reconciler: Reconciler | None = None
        #: Since when each engine is as it is.
        self._conditions: dict[NodeId, dict[str, tuple[Condition, float]]] = {}
        self._first_seen: dict[str, float] = {}

    def changed(self, now: float, node: Node) -> None:
        """A node's link opened or closed, it reported, or it drains."""
        if self._reconciler is None:
            self._reconciler = Reconciler(now)
        self._reconciler.node(now, self._facts(now, node))

    def run(self, now: float) -> list[do.Effect]:
        """Decide; what nodes are to be told."""
        if self._reconciler is None:
            return []
        for model in self._roster.forgotten():
            self._reconciler.retire(model)
            self._first_seen.pop(model, None)
        for model in self._roster.models():
            self._reconciler.model(now, self._model_facts(now, model))
        effects: list[do.Effect] = []
        for assignment in self._reconciler.run(now):
            node = self._roster.nodes[assignment.node_id]
            if node.link is not None:
                effects.append(
                    do.AssignModels(node.node_id, node.link, self._term, assignment.revision, assignment.models)
                )
        return effects

    def redundancy(self, model: str) -> Redundancy | None:
        """How many losses a model stands; None where nobody has named it."""
        return self._reconciler.redundancy(model) if self._reconciler else None

    def why_short(self, now: float, model: str, name: NodeName) -> str:
        """What keeps a model from having the replicas that it should; empty where nothing does, or nobody knows."""
        return self._reconciler.why_short(now, model, name) if self._reconciler else ""

    def why_not_there(self, now: float, model: str, node_id: NodeId) -> str:
        """Why a node should not have a model loaded; empty where it should, or nobody knows."""
        return self._reconciler.why_not_there(now, model, node_id) if self._reconciler else ""

    def assigned(self, node_id: NodeId) -> Sequence[str]:
        """What a node should have loaded."""
        assignment = self._reconciler.assignment(node_id) if self._reconciler else None
        return assignment.models if assignment else ()

    # --- facts ---------------------------------------------------------------------------------------

    def _facts(self, now: float, node: Node) -> NodeFacts:
        report = node.report
        terms = report.terms if report else None
        engines: dict[str, EngineReport] = {}
        for engine in report.engines if report else ():
            # Of two for one model the one that serves.
            if engine.model not in engines or engine.status.state in SERVING:
                engines[engine.model] = engine
        before = self._conditions.get(node.node_id, {})
        conditions = {model: self._condition(now, node, engine, before) for model, engine in engines.items()}
        if report is not None:
            self._conditions[node.node_id] = conditions
        return NodeFacts(
            node_id=node.node_id,
            owner=node.owner,
            network=node.address,
            host=report.host.name if report else "",
            linked=node.link is not None and report is not None,
            since=node.lost_at if node.link is None else node.linked_at,
            memory=(terms.memory_bytes if terms else 0) or UNBOUNDED_BYTES,
            engines={model: _engine_facts(node, engine, *conditions[model]) for model, engine in engines.items()},
            allowed=frozenset(terms.models if terms else ()),
            closes_at=node.closes_at,
            margin=_margin(node),
            draining=node.draining,
            may_scale_to_zero=terms.scales_to_zero if terms else False,
            revision=node.assigned_revision,
        )

    def _condition(
        self, now: float, node: Node, engine: EngineReport, before: Mapping[str, tuple[Condition, float]]
    ) -> tuple[Condition, float]:
        """How an engine is, and since when."""
        condition = Condition.FAILED if engine.model in node.refused else _condition(node, engine)
        was, since = before.get(engine.model, (Condition.ABSENT, now))
        return (was, since) if condition is was else (condition, now)

    def _model_facts(self, now: float, model: str) -> ModelFacts:
        served = self._roster.served(model)
        assert served is not None, "it is one of the roster's models"
        return ModelFacts(
            model=model,
            # Its first sight counts as a request: nobody loads a model for nothing.
            asked_at=self._first_seen.setdefault(model, now) if served.asked_at is None else served.asked_at,
            under_way=sum(offer.in_flight for offer in served.offers.values()),
            waiting=self._waiting.new(model),
            load_seconds=max(LOAD_SECONDS_MIN, LOAD_SECONDS if served.load_seconds is None else served.load_seconds),
        )


def _condition(node: Node, engine: EngineReport) -> Condition:
    state = engine.status.state
    if state in SERVING:
        return Condition.SICK if node.standing(engine.model).breaker.sick else Condition.SERVING
    if state in COMING:
        return Condition.LOADING
    return Condition.FAILED if state is State.INCOMPATIBLE else Condition.ABSENT


def _margin(node: Node) -> float | None:
    """How far it is below its cap; a node that cools and cannot tell how hot it is, is hot."""
    return 0.0 if node.margin is None and node.kept_back and node.state is State.COOLING else node.margin


def _engine_facts(node: Node, engine: EngineReport, condition: Condition, since: float) -> EngineFacts:
    return EngineFacts(
        size=engine.memory_bytes,
        condition=condition,
        since=since,
        failed_until=math.inf if engine.status.state is State.INCOMPATIBLE else 0.0,
        reason=node.refused.get(engine.model, engine.status.reason),
    )
