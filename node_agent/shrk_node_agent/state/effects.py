"""Everything the state may ask the world to do."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_contract.terms import ModelOutcome, Rejection
from shrk_node_agent.state.events import AttemptKey, EngineId
from shrk_node_agent.state.seats import ANYWHERE, Seat
from shrk_node_agent.state.terms.actuators import Rung


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Start this engine's process."""

    engine: EngineId
    seat: Seat = ANYWHERE


@dataclass(frozen=True, slots=True)
class ReadFigures:
    """Ask this engine for its figures, and tell them."""

    engine: EngineId


@dataclass(frozen=True, slots=True)
class AskCanary:
    """Ask this engine for one token, in place of any such question before, and tell when it comes."""

    engine: EngineId


@dataclass(frozen=True, slots=True)
class RestartEngine:
    """This engine hangs: fail its attempts, and end its process; the state starts it again."""

    engine: EngineId
    #: One sentence for the owner.
    reason: str


@dataclass(frozen=True, slots=True)
class UnloadEngine:
    """This engine's model is not wanted any more: move what it still answers elsewhere, and end its process."""

    engine: EngineId


@dataclass(frozen=True, slots=True)
class TellAssigned:
    """Answer the coordinators' newest assignment."""

    leader_term: int
    revision: int
    outcomes: tuple[ModelOutcome, ...]


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
class ActuateGpu:
    """Set this on a GPU, read it back, and tell."""

    uuid: str
    rung: Rung
    #: Degrees Celsius or watts.
    value: float


@dataclass(frozen=True, slots=True)
class MoveAttempts:
    """The owner's terms leave no room for these: fail them in such a way that they go on elsewhere."""

    keys: tuple[AttemptKey, ...]
    #: One sentence for operators.
    reason: str


@dataclass(frozen=True, slots=True)
class TellStatus:
    """Something changed that coordinators, or people who look, should hear at once."""


Effect = (
    StartEngine
    | ReadFigures
    | AskCanary
    | RestartEngine
    | UnloadEngine
    | TellAssigned
    | RunAttempt
    | RejectAttempt
    | ActuateGpu
    | MoveAttempts
    | TellStatus
)
