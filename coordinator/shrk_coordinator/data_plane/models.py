"""The model list, in entries that satisfy both the OpenAI and the Anthropic SDK."""

from __future__ import annotations

import datetime as dt
from typing import Any

from shrk_coordinator.state.census import RedundancyState, effective_n, redundancy_state, wanted_n
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.shortage import why_short
from shrk_coordinator.streams import NodeNames


def entry(state: CoordinatorState, model: str, created: int, now: float, node_name: NodeNames) -> dict[str, Any]:
    """One model: what it is called, and what stands behind it `now` (monotonic). `created` in unix seconds."""
    offers = [offer for _, offer in state.roster.offers(model)]
    wanted = state.assigning.redundancy(model)
    replicas = effective_n(state.roster, model, now, wanted)
    redundancy = redundancy_state(replicas, wanted)
    why = "" if redundancy is RedundancyState.OK else why_short(state.roster, state.assigning, model, now, node_name)
    context = max((offer.engine.context_tokens for offer in offers), default=0)
    return {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "shrk",
        "type": "model",
        "display_name": model,
        "created_at": dt.datetime.fromtimestamp(created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": context or None,
        "max_tokens": context or None,
        "shrk": {
            "nodes": len(offers),
            # Owners, else networks, else hosts of which a node can be asked now: what is lost at once counts once.
            "effective_n": replicas,
            "wanted_n": wanted_n(wanted),
            "redundancy": redundancy,
            "redundancy_reason": why,
            "waiting": len(state.attempts.waiting.of(model)),
            "slots": sum(offer.engine.slots for offer in offers),
            "in_flight": sum(offer.in_flight for offer in offers),
            "context": context,
            "endpoints": sorted({str(endpoint) for offer in offers for endpoint in offer.engine.endpoints}),
        },
    }


def listing(state: CoordinatorState, created: int, now: float, node_name: NodeNames) -> dict[str, Any]:
    """All models that nodes have offered, those without a node at the moment included."""
    entries = [entry(state, model, created, now, node_name) for model in state.roster.models()]
    return {
        "object": "list",
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }
