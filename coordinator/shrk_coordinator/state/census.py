"""Counts over all nodes and models, for metrics and the model list. Each looks at everything: not for every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

from shrk_contract.terms import State
from shrk_coordinator.state.placement import Reason, takes_nothing
from shrk_coordinator.state.replicas.demand import REPLICAS_WANTED
from shrk_coordinator.state.replicas.domains import Level, Tally
from shrk_coordinator.state.replicas.facts import Redundancy
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.verdict import state_of
from shrk_coordinator.state.waiting import Waiting

#: Models that get a label of their own in metrics: names come from nodes, which may invent them.
LABELS_MAX = 200
#: What all others are counted under; no model has this name.
OTHERS = "(others)"


class RedundancyState(StrEnum):
    """How a model stands: the same words in the model list, the command and the metrics."""

    OK = "ok"
    #: It is served, from fewer failure domains than it should be.
    DEGRADED = "degraded"
    #: Nobody can answer now.
    NONE = "none"
    #: Nobody has asked for so long that it was unloaded; it is loaded again when somebody does.
    IDLE = "idle"


def left_out(node: Node, offer: Offer, now: float) -> Reason | None:
    """Why a node that serves a model is none of its replicas now; None where it is one."""
    if reason := takes_nothing(node, now):
        return reason
    breaker = offer.standing.breaker
    if not breaker.closed:
        return Reason.UNWELL if breaker.stalled else Reason.EJECTED
    return Reason.UNWELL if node.quiet else None


def effective_n(roster: Roster, model: str, now: float, redundancy: Redundancy | None = None) -> int:
    """Failure domains of which at least one node can be asked for the model: what is lost at once counts once.

    Counted is what `redundancy` counts: owners, where enough may have it; else networks, else hosts; where nobody has
    looked at the model yet, whatever there is enough of. Nodes that are `left_out` do not count.
    """
    tally = Tally(
        (node.owner, node.address, f"{node.address}/{node.name}")
        for node, offer in roster.offers(model)
        if left_out(node, offer, now) is None
    )
    if redundancy is not None:
        return tally.count(next(level for level in Level if level.word == redundancy.domain))
    counts = [tally.count(level) for level in Level]
    return next((count for count in counts if count >= REPLICAS_WANTED), max(counts))


def wanted_n(redundancy: Redundancy | None) -> int:
    """How many there should be; `redundancy`: None where nobody has looked at the model yet."""
    return REPLICAS_WANTED if redundancy is None else redundancy.wanted_n


def redundancy_state(replicas: int, redundancy: Redundancy | None) -> RedundancyState:
    """How a model with so many independent nodes stands."""
    if not replicas:
        return RedundancyState.IDLE if redundancy is not None and redundancy.idle else RedundancyState.NONE
    return RedundancyState.OK if replicas >= wanted_n(redundancy) else RedundancyState.DEGRADED


def effective_by_model(
    roster: Roster, redundancy: Callable[[str], Redundancy | None], now: float
) -> Mapping[str, float]:
    """How many independent nodes each model has."""
    return _labelled(roster, ((model, effective_n(roster, model, now, redundancy(model))) for model in roster.models()))


def models_by_redundancy(
    roster: Roster, redundancy: Callable[[str], Redundancy | None], now: float
) -> Mapping[str, float]:
    """How many models stand how; all states, so that a count that falls to nothing is told."""
    wanted = ((model, redundancy(model)) for model in roster.models())
    counts = Counter(redundancy_state(effective_n(roster, model, now, one), one) for model, one in wanted)
    return {str(state): counts[state] for state in RedundancyState}


def nodes_by_state(roster: Roster) -> Mapping[str, float]:
    """How many nodes are in each state; all states, so that a count that falls to nothing is told."""
    counts = Counter(state_of(node) for node in roster.nodes.values())
    return {str(state): counts[state] for state in State}


def offers_by_model(roster: Roster) -> Mapping[str, float]:
    """How many nodes serve each model."""
    return _labelled(roster, ((model, roster.count(model)) for model in roster.models()))


def breakers_open_by_model(roster: Roster) -> Mapping[str, float]:
    """On how many nodes each model is left alone, or tried with one request at a time, since requests failed there."""
    return _labelled(
        roster,
        (
            (model, sum(not offer.standing.breaker.closed for _, offer in roster.offers(model)))
            for model in roster.models()
        ),
    )


def waiting_by_model(roster: Roster, waiting: Waiting) -> Mapping[str, float]:
    """How many requests wait for a node of each model."""
    return _labelled(roster, ((model, len(waiting.of(model))) for model in roster.models()))


def _labelled(roster: Roster, counted: Iterator[tuple[str, int]]) -> Mapping[str, float]:
    """Counts under few labels: of many models those that most nodes serve keep their names."""
    models = roster.models()
    kept = models
    if len(models) > LABELS_MAX:
        kept = sorted(models, key=lambda model: (-roster.count(model), model))[:LABELS_MAX]
    counts: dict[str, float] = dict.fromkeys(kept, 0)
    for model, count in counted:
        label = model if model in counts else OTHERS
        counts[label] = counts.get(label, 0) + count
    return counts
