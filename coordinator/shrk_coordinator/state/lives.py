"""What one start of an engine is called."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_coordinator.state.events import LinkId


@dataclass(frozen=True, slots=True)
class EngineLife:
    """One engine from one start to its end, on one link: what failed a request here may serve it after a restart."""

    link: LinkId
    engine: str
    life: int
