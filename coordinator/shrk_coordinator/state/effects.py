"""Everything the state may ask the world to do."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_contract.terms import Endpoint, ResumeMethod
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId, RequestId, StreamId


@dataclass(frozen=True, slots=True)
class WelcomeNode:
    """Admit the node on this link."""

    node_id: NodeId
    link: LinkId


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Say why, then close."""

    link: LinkId
    why: LinkEnd


@dataclass(frozen=True, slots=True)
class Superseded:
    """A newer start of the same agent holds the node's link."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing was heard for longer than the bound."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Two machines use the node's identity: neither is let in."""

    #: Who they are, for people.
    words: str


LinkEnd = Superseded | Silent | Copied


@dataclass(frozen=True, slots=True)
class AssignModels:
    """Tell this node which models to have loaded, and no others."""

    node_id: NodeId
    link: LinkId
    #: Of this coordinator's start, and within it of the node's assignment: nodes obey the highest of both.
    leader_term: int
    revision: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Ask this node."""

    request_id: RequestId
    attempt: int
    stream: StreamId
    node_id: NodeId
    link: LinkId
    #: How to go on from what was delivered; None: from the beginning.
    resume: ResumeMethod | None = None
    #: Why there was need for another attempt: the code of what ended the last one.
    after: str = ""
    #: Besides the one that is asked already: whichever speaks first is the answer.
    rival: bool = False
    #: If nothing has been said after so many seconds, a second node may be asked (`HedgeDue`); None: never.
    hedge_after: float | None = None


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Tell the node to stop, and take no more of its frames for this stream."""

    stream: StreamId
    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseStream:
    """The attempt ended on the node's side: forget its stream."""

    stream: StreamId
    link: LinkId


@dataclass(frozen=True, slots=True)
class UnknownModel:
    """No node has named this model since the coordinator started."""

    model: str
    nearest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrongEndpoint:
    """Nodes serve the model, and none of them this endpoint: it is not that kind of model."""

    model: str
    asked: Endpoint
    served: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class NoNode:
    """The model is known, but no node can take the request now. `counts` holds how many nodes per reason."""

    model: str
    counts: tuple[tuple[str, int], ...]
    #: When it is worth another try.
    retry_after_seconds: float = 2.0
    #: It is loaded nowhere: when it should be; None: where it is loaded, or is not to be.
    loads_in_seconds: float | None = None
    #: A node is loading it already.
    loading: bool = False


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Engines crashed of this very request; it is asked of none for so long."""

    model: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RefuseRequest:
    """End the request; no node is working on it."""

    request_id: RequestId
    why: UnknownModel | WrongEndpoint | NoNode | Poisoned


@dataclass(frozen=True, slots=True)
class FailRequest:
    """End the request with what the last attempt said."""

    request_id: RequestId
    failure: FailureDetail
    attempts: int


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """End the request well: all of its tokens came, and the node was lost before it could say so."""

    request_id: RequestId


Effect = (
    WelcomeNode
    | CloseLink
    | AssignModels
    | StartAttempt
    | CancelAttempt
    | ReleaseStream
    | RefuseRequest
    | FailRequest
    | CompleteRequest
)
