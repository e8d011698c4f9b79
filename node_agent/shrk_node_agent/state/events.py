"""Everything that can happen to the agent. `now` is monotonic seconds, given by the driver."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_contract.terms import Endpoint, Pin

EngineId = str
#: One attempt: the link it came on and its stream there.
AttemptKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class EngineProgressed:
    """An engine told how far its start is."""

    now: float
    engine: EngineId
    detail: str
    progress: float | None
    #: Its model is on the way to this machine.
    downloading: bool = False


@dataclass(frozen=True, slots=True)
class EngineBecameReady:
    """An engine answered its first token."""

    now: float
    engine: EngineId
    pin: Pin
    endpoints: tuple[Endpoint, ...]
    slots: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class EngineEnded:
    """An engine is gone, with everything it started."""

    now: float
    engine: EngineId
    reason: str
    #: Starting it again would end the same way.
    incompatible: bool
    #: Its model was still on the way to this machine: the engine itself is not to blame.
    fetching: bool = False


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The owner wants engines that were given up, or that wait for their next start, to be started now."""

    now: float
    #: The model to try; None: all of them.
    model: str | None = None


@dataclass(frozen=True, slots=True)
class AnswersMoved:
    """Pieces came from an engine since the last tick, or other answers than then wait for credit."""

    now: float
    engine: EngineId
    #: Answers that wait for credit.
    held: int


@dataclass(frozen=True, slots=True)
class FiguresRead:
    """An engine told its own figures, as it writes them, which change as it works; empty where it has none."""

    now: float
    engine: EngineId
    figures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CanaryAnswered:
    """An engine gave the one token that it was asked for."""

    now: float
    engine: EngineId


@dataclass(frozen=True, slots=True)
class AttemptAsked:
    """A coordinator wants an answer."""

    now: float
    key: AttemptKey
    model: str
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt is over, however it ended."""

    now: float
    key: AttemptKey


@dataclass(frozen=True, slots=True)
class Assigned:
    """A coordinator wants these models on this node, and no others."""

    now: float
    #: Of the coordinator that leads; within it, of the assignment.
    leader_term: int
    revision: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The link to the coordinator came up, went down or was refused; `shrk status` shows which."""

    now: float


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The owner or the service manager wants the agent to stop."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: what is due is done."""

    now: float


Event = (
    EngineProgressed
    | EngineBecameReady
    | EngineEnded
    | RetryAsked
    | AnswersMoved
    | FiguresRead
    | CanaryAnswered
    | AttemptAsked
    | AttemptEnded
    | Assigned
    | LinkChanged
    | DrainAsked
    | Tick
)
