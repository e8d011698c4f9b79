"""Where the two planes meet without knowing each other: what a link offers a relay, and a relay a link.

Pieces flow from a link straight into a relay through `AttemptSink`; everything else about an attempt goes
through the driver and the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shrk_contract.v1 import link_pb2
from shrk_coordinator.state.effects import (
    AssignModels,
    CloseLink,
    FailRequest,
    RefuseRequest,
    StartAttempt,
    WelcomeNode,
)
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId, StreamId


class AttemptSink(Protocol):
    """Takes what a node says about one attempt. Called in the event loop, in order; must not block."""

    def prompt(self, prompt: link_pb2.Prompt) -> None:
        """A part of the prompt's token ids."""
        ...

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """A part of the answer; `part` is the piece's bytes, `size` their number."""
        ...

    def finish(self, finish: link_pb2.Finish) -> None:
        """The node says that the answer is whole."""
        ...


class RequestPort(Protocol):
    """One caller's request, as the driver drives it."""

    def begin(self, effect: StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        """An attempt starts: the frames to send, the start frame first. A rival runs beside the one before it."""
        ...

    def sink(self, stream: StreamId) -> AttemptSink:
        """Where an attempt's pieces go."""
        ...

    def refused(self, effect: RefuseRequest) -> None:
        """No node takes it."""
        ...

    def failed(self, effect: FailRequest) -> None:
        """The last attempt failed, and there will be no other."""
        ...

    def stopped(self) -> None:
        """The coordinator stops, and has no more time for it."""
        ...

    def completed(self) -> None:
        """All tokens came, and the node was lost before it could say so."""
        ...

    def stalled(self, now: float) -> StreamId | None:
        """The stream whose node sends nothing though it should, if it is so."""
        ...


class LinkPort(Protocol):
    """All links, as the driver and the relays use them."""

    def welcome(self, effect: WelcomeNode) -> None:
        """Admit a node."""
        ...

    def close(self, effect: CloseLink) -> None:
        """Say why, then close the link."""
        ...

    def assign(self, effect: AssignModels) -> None:
        """Tell a node which models to have loaded."""
        ...

    def start(
        self, link: LinkId, stream: StreamId, frames: Sequence[link_pb2.CoordinatorFrame], sink: AttemptSink
    ) -> bool:
        """Send the frames that start an attempt; False when the link is gone."""
        ...

    def cancel(self, link: LinkId, stream: StreamId, reason: str) -> None:
        """Tell the node to stop, and drop whatever it still sends for the stream."""
        ...

    def release(self, link: LinkId, stream: StreamId) -> None:
        """Drop whatever the node still sends for the stream."""
        ...

    def credit(self, link: LinkId, stream: StreamId, size: int) -> None:
        """Let the node send this many bytes more."""
        ...


class Announcements(Protocol):
    """What the relays tell the driver about an attempt."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def first_piece(self, stream: StreamId, index: int) -> None:
        """An attempt's first piece goes to the caller; `index` of its first token."""
        ...

    def race_won(self, stream: StreamId) -> None:
        """Of two attempts this one has said something first: the other is not listened to any more."""
        ...

    def continued(self, attempt: StartAttempt, gap: float) -> None:
        """An answer goes on from another node, this many seconds after the last piece of the one before."""
        ...

    def ids_unknown(self, stream: StreamId) -> None:
        """The engine did not tell all token ids."""
        ...

    def last_token(self, stream: StreamId, tokens: int) -> None:
        """The answer's last token goes to the caller; `tokens` of the whole answer."""
        ...

    def finished(self, stream: StreamId, tokens: int) -> None:
        """The answer is whole."""
        ...

    def broken(self, stream: StreamId, failure: FailureDetail) -> None:
        """The node broke the contract."""
        ...


class NodeNames(Protocol):
    """What callers may know of a node."""

    def __call__(self, node_id: NodeId) -> str:
        """A pseudonym, stable per node."""
        ...
