"""The model list, in entries that satisfy both the OpenAI and the Anthropic SDK."""

from __future__ import annotations

import datetime as dt
from typing import Any

from shrk_coordinator.state.roster import Roster


def entry(roster: Roster, model: str, created: int) -> dict[str, Any]:
    """One model: what it is called, and what stands behind it now. `created` in unix seconds."""
    offers = [offer for _, offer in roster.offers(model)]
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
            "effective_n": len({roster.nodes[offer.node_id].owner for offer in offers}),
            "slots": sum(offer.engine.slots for offer in offers),
            "in_flight": sum(offer.in_flight for offer in offers),
            "context": context,
            "endpoints": sorted({str(endpoint) for offer in offers for endpoint in offer.engine.endpoints}),
        },
    }


def listing(roster: Roster, created: int) -> dict[str, Any]:
    """All models that nodes have offered, those without a node at the moment included."""
    entries = [entry(roster, model, created) for model in roster.models()]
    return {
        "object": "list",
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }
