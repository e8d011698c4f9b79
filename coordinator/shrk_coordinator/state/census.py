"""Counts over all nodes and models, for metrics and the model list. Each looks at everything: not for every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from shrk_contract.terms import State
from shrk_coordinator.state.replicas.demand import REPLICAS_WANTED
from shrk_coordinator.state.replicas.domains import Level, Tally
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.verdict import state_of
from shrk_coordinator.state.waiting import Waiting

#: Models that get a label of their own in metrics: names come from nodes, which may invent them.
LABELS_MAX = 200
#: What all others are counted under; no model has this name.
OTHERS = "(others)"


def effective_n(roster: Roster, model: str) -> int:
    """Failure domains of which at least one node can be asked for the model: what is lost at once counts once.

    Counted are owners, where there are enough of them; else networks, else hosts. Nodes that are stopping, silent, or
    left alone since requests failed there, do not count.
    """
    tally = Tally(
        (node.owner, node.address, f"{node.address}/{node.name}")
        for node, offer in roster.offers(model)
        if offer.standing.breaker.closed and not node.draining and not node.quiet
    )
    counts = [tally.count(level) for level in Level]
    return next((count for count in counts if count >= REPLICAS_WANTED), max(counts))


def is_degraded(replicas: int) -> bool:
    """Whether a model has fewer independent nodes than it should; it is served all the same."""
    return replicas < REPLICAS_WANTED


def effective_by_model(roster: Roster) -> Mapping[str, float]:
    """The same for each model."""
    return _labelled(roster, ((model, effective_n(roster, model)) for model in roster.models()))


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
