"""The model list, in entries that satisfy both the OpenAI and the Anthropic SDK."""

from __future__ import annotations

import datetime as dt
from typing import Any

from shrk_coordinator.state.census import effective_n, is_degraded
from shrk_coordinator.state.coordinator import CoordinatorState


def entry(state: CoordinatorState, model: str, created: int) -> dict[str, Any]:
    """One model: what it is called, and what stands behind it now. `created` in unix seconds."""
    offers = [offer for _, offer in state.roster.offers(model)]
    replicas = effective_n(state.roster, model)
    wanted = state.assigning.redundancy(model)
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
            "redundancy": "degraded" if is_degraded(replicas) else "ok",
            "redundancy_reason": wanted.reason if wanted and is_degraded(replicas) else "",
            "waiting": len(state.attempts.waiting.of(model)),
            "slots": sum(offer.engine.slots for offer in offers),
            "in_flight": sum(offer.in_flight for offer in offers),
            "context": context,
            "endpoints": sorted({str(endpoint) for offer in offers for endpoint in offer.engine.endpoints}),
        },
    }


def listing(state: CoordinatorState, created: int) -> dict[str, Any]:
    """All models that nodes have offered, those without a node at the moment included."""
    entries = [entry(state, model, created) for model in state.roster.models()]
    return {
        "object": "list",
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }
