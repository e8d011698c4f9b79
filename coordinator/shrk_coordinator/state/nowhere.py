"""Why no node can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_contract.terms import Endpoint


@dataclass(frozen=True, slots=True)
class NotThatKind:
    """Nodes serve the model, and none of them this endpoint."""

    served: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No feasible node; how many there were per reason."""

    counts: tuple[tuple[str, int], ...]
    #: Of all slots that were looked at those that are merely taken, and come free: 0 to 1.
    busy_share: float = field(default=1.0, compare=False)
