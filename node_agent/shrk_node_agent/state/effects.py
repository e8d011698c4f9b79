"""Everything the state may ask the world to do."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_contract.terms import Rejection
from shrk_node_agent.state.events import AttemptKey, EngineId


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Start this engine's process."""

    engine: EngineId


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """Accept the attempt and ask this engine."""

    key: AttemptKey
    engine: EngineId


@dataclass(frozen=True, slots=True)
class RejectAttempt:
    """Say no; never a failure."""

    key: AttemptKey
    reason: Rejection
    message: str


@dataclass(frozen=True, slots=True)
class TellStatus:
    """Something changed that coordinators, or people who look, should hear at once."""


Effect = StartEngine | RunAttempt | RejectAttempt | TellStatus
