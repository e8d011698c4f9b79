"""Everything that can happen to the agent. `now` is monotonic seconds, given by the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shrk_contract.terms import Endpoint, Pin
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.terms.actuators import Abilities, Rung
from shrk_node_agent.state.terms.terms import Wanted

EngineId = str
#: One attempt: the link it came on and its stream there.
AttemptKey = tuple[int, int]
#: Where nobody's hours matter.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
class SensorsRead:
    """The GPUs were read."""

    now: float
    readings: tuple[GpuReading, ...]
    #: What may be set on each, by UUID.
    abilities: Mapping[str, Abilities]
    #: Processes of our engines, looked at after the reading; None where the driver's numbers are others than ours.
    pids: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class SensorsFailed:
    """The GPUs could not be read."""

    now: float
    reason: str


@dataclass(frozen=True, slots=True)
class GpuActuated:
    """What was to be set on a GPU was read back."""

    now: float
    uuid: str
    rung: Rung
    confirmed: bool


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """The owner wants a pause, for so many seconds; None: until they resume."""

    now: float
    seconds: float | None
    #: Nothing is there that could end first: it holds since before the agent began.
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The owner ends a pause."""

    now: float


@dataclass(frozen=True, slots=True)
class ModelsChanged:
    """The owner serves these models, and gives them so much memory together (0: there is no bound)."""

    now: float
    needs: tuple[Need, ...]
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TermsChanged:
    """The owner has changed the settings."""

    now: float
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: what is due is done."""

    now: float
    #: The wall clock, for the owner's hours.
    utc: datetime = _EPOCH


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
    | SensorsRead
    | SensorsFailed
    | GpuActuated
    | PauseAsked
    | ResumeAsked
    | ModelsChanged
    | TermsChanged
    | Tick
)
