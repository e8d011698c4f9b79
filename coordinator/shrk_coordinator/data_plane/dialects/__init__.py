"""One module per dialect: what its requests must hold, and how its answers end.

Everything else of a dialect is the engine's: bodies go there as they came, events come back as it made them.
"""

from __future__ import annotations

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane.dialects import chat, completions, embeddings
from shrk_coordinator.data_plane.dialects.dialect import Dialect

DIALECTS: dict[Endpoint, Dialect] = {
    Endpoint.CHAT_COMPLETIONS: chat.DIALECT,
    Endpoint.COMPLETIONS: completions.DIALECT,
    Endpoint.EMBEDDINGS: embeddings.DIALECT,
}

__all__ = ["DIALECTS", "Dialect"]
