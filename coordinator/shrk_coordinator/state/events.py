"""Everything that can happen to the coordinator. `now` is monotonic seconds, given by the driver."""

from __future__ import annotations

from dataclasses import dataclass

from shrk_contract.terms import Endpoint, Fault, ModelOutcome, Rejection, Report

RequestId = bytes
NodeId = str
#: Serial of one link within this coordinator's life: a node that dials again gets another.
LinkId = int
#: Short id of one attempt within this coordinator's life.
StreamId = int


@dataclass(frozen=True, slots=True)
class FailureDetail:
    """What went wrong in one attempt, in the words a caller may see."""

    fault: Fault
    message: str
    #: The engine's HTTP status where it gave one, else 0.
    http_status: int = 0
    type: str = ""
    code: str = ""
    param: str = ""


@dataclass(frozen=True, slots=True)
class NodeHello:
    """A certified node opened a link and said hello."""

    now: float
    node_id: NodeId
    link: LinkId
    incarnation: int
    owner: str
    #: The host that it dialled from; empty: not known.
    address: str = ""
    #: Random, and equal for all links of one start of an agent; empty: an older agent, which does not tell.
    start_id: bytes = b""
    #: The same start holds another link and has a new certificate: that link ends what runs on it.
    renews: bool = False


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node's report came in."""

    now: float
    node_id: NodeId
    link: LinkId
    report: Report


@dataclass(frozen=True, slots=True)
class NodeAssigned:
    """A node answered an assignment; what it did about each model."""

    now: float
    node_id: NodeId
    link: LinkId
    revision: int
    outcomes: tuple[ModelOutcome, ...]


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """Something came from a node. Its reports may wait behind its pieces on a slow line."""

    now: float
    node_id: NodeId
    link: LinkId


@dataclass(frozen=True, slots=True)
class NodeDraining:
    """A node finishes what runs and takes nothing new."""

    now: float
    node_id: NodeId
    link: LinkId
    #: How long it lets run what runs.
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """A link is gone, whoever closed it."""

    now: float
    node_id: NodeId
    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A caller's request passed its checks and wants a node."""

    now: float
    request_id: RequestId
    model: str
    endpoint: Endpoint
    #: The answer goes out as it comes: it counts as delivered from its first piece, else only with its end.
    streaming: bool
    #: Nothing in the request keeps it from being continued by token ids.
    by_ids: bool = False
    #: The key it came with; only that key is told of it afterwards.
    key_id: str = ""
    #: Of what the caller sent; empty: not told.
    digest: bytes = b""
    #: The first of several answers to one request, where this is another of them, and which; empty where it is the only
    #: one, or the first.
    sibling_of: RequestId = b""
    sibling: int = 0
    #: What it shares with the other turns of its conversation, as `affinity.digest` gives it; 0: nothing.
    affinity: int = 0


@dataclass(frozen=True, slots=True)
class ProbeArrived:
    """One token is asked of this node and of no other, on its owner's behalf."""

    now: float
    request_id: RequestId
    node_id: NodeId
    model: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """A first attempt has taken as long as nearly all others do: a second node may be asked."""

    now: float
    stream: StreamId


@dataclass(frozen=True, slots=True)
class AttemptAccepted:
    """The node took the attempt; its engine is reading the prompt."""

    now: float
    stream: StreamId


@dataclass(frozen=True, slots=True)
class AttemptRejected:
    """The node did not take the attempt. Never a failure."""

    now: float
    stream: StreamId
    reason: Rejection


@dataclass(frozen=True, slots=True)
class FirstPieceDelivered:
    """An attempt's first piece goes to the caller: from here on it cannot be taken back."""

    now: float
    stream: StreamId
    #: Of its first token, counted from the start of the answer: in a continued one, where the seam is.
    index: int = 0


@dataclass(frozen=True, slots=True)
class RaceWon:
    """Of two attempts this one has sent something first, be it half an event: the other is not listened to any more."""

    now: float
    stream: StreamId


@dataclass(frozen=True, slots=True)
class IdsUnknown:
    """The engine did not tell all token ids: this answer cannot be continued by them."""

    now: float
    stream: StreamId


@dataclass(frozen=True, slots=True)
class LastTokenDelivered:
    """The answer's last token goes to the caller; only the finish is missing."""

    now: float
    stream: StreamId
    #: Tokens of the whole answer.
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """The answer is whole."""

    now: float
    stream: StreamId
    #: Tokens of the whole answer.
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class AttemptStalled:
    """No token came for longer than this stream's own pace explains."""

    now: float
    stream: StreamId


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt ended without a whole answer."""

    now: float
    stream: StreamId
    failure: FailureDetail


@dataclass(frozen=True, slots=True)
class AttemptBroken:
    """The node sent what the contract forbids; it may still be generating, so it must be told to stop."""

    now: float
    stream: StreamId
    failure: FailureDetail


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The caller closed its connection, or stopped reading for too long."""

    now: float
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: deadlines are looked at."""

    now: float


@dataclass(frozen=True, slots=True)
class Reconcile:
    """It is time to look at which node should load which model."""

    now: float


Event = (
    NodeHello
    | NodeReported
    | NodeAssigned
    | NodeHeard
    | NodeDraining
    | LinkClosed
    | RequestArrived
    | ProbeArrived
    | HedgeDue
    | RaceWon
    | AttemptAccepted
    | AttemptRejected
    | FirstPieceDelivered
    | IdsUnknown
    | LastTokenDelivered
    | AttemptFinished
    | AttemptStalled
    | AttemptFailed
    | AttemptBroken
    | CallerLeft
    | Tick
    | Reconcile
)
