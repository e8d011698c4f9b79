"""Bugs to plant: each is a part of the product with one thing wrong, which the simulation has to find.

Nothing of the product is touched; a run takes its parts from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shrk_contract.v1 import link_pb2
from shrk_coordinator.control_plane.links import Link, Links
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.attempts import Attempt
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict
from shrk_coordinator.state.events import FailureDetail, LinkId, StreamId
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.streams import AttemptSink


class Bug(StrEnum):
    """What can be planted."""

    LOSER_NEVER_RELEASED = "loser-never-released"
    STALE_FRAME_ACCEPTED = "stale-frame-accepted"
    FINISH_TWICE = "finish-twice"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of, where it may be other than the product's own."""

    state: Callable[[], CoordinatorState] = CoordinatorState
    cursor: Callable[[], CommitCursor] = CommitCursor
    links: type[Links] = Links


class _NeverReleases(CoordinatorState):
    """An attempt that was handed over keeps its slot."""

    def _give_back(self, now: float, attempt: Attempt, outcome: Outcome, failure: FailureDetail | None) -> None:
        offer = self._offer_of(attempt)
        super()._give_back(now, attempt, outcome, failure)
        if offer is not None and outcome is Outcome.HANDED_OVER:
            offer.in_flight += 1


class _ForgetsWhose(Links):
    """Frames of an attempt that is over still reach the relay, as if they were the present attempt's …"""

    def __init__(self, boot_id: bytes, replicas: Sequence[str]) -> None:
        super().__init__(boot_id, replicas)
        self._newest: dict[bytes, AttemptSink] = {}

    def add(self, link: Link) -> None:
        """A node said hello."""
        link.sinks = _Unforgetting()
        super().add(link)

    def start(
        self, link: LinkId, stream: StreamId, frames: Sequence[link_pb2.CoordinatorFrame], sink: AttemptSink
    ) -> bool:
        """Send the frames that start an attempt."""
        request = frames[0].start.request_id
        self._newest[request] = sink
        return super().start(link, stream, frames, _Anybodys(self._newest, request))


class _Unforgetting(dict[StreamId, AttemptSink]):
    """Finds what was taken out of it, and shows nothing of that."""

    def __init__(self) -> None:
        super().__init__()
        self._ever: dict[StreamId, AttemptSink] = {}

    def __setitem__(self, stream: StreamId, sink: AttemptSink) -> None:
        super().__setitem__(stream, sink)
        self._ever[stream] = sink

    def get(self, stream: StreamId, default: object = None) -> Any:
        """The sink that this stream has or had."""
        return self._ever.get(stream, default)


class _Anybodys:
    """Takes one attempt's frames to whichever attempt came last."""

    def __init__(self, newest: Mapping[bytes, AttemptSink], request: bytes) -> None:
        self._newest = newest
        self._request = request

    def prompt(self, prompt: link_pb2.Prompt) -> None:
        self._newest[self._request].prompt(prompt)

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        self._newest[self._request].piece(piece, size, part)

    def finish(self, finish: link_pb2.Finish) -> None:
        self._newest[self._request].finish(finish)


class _CountsTokensOnly(CommitCursor):
    """… and the cursor takes them, where their tokens are those that are due."""

    __slots__ = ()

    def accept(
        self, stream: int, sequence: int, first_index: int, tokens: int, digest: int, more: bool = False
    ) -> PieceVerdict:
        """Judge one piece."""
        if first_index == self.index:
            self.current, self._next_sequence = stream, sequence
        return super().accept(stream, sequence, first_index, tokens, digest, more)


class _FinishesTwice(CoordinatorState):
    """An answer that was continued is taken for one that lost its node behind its last token."""

    def handle(self, event: seen.Event) -> Sequence[do.Effect]:
        """Take in one fact."""
        attempt = self.attempts.by_stream.get(event.stream) if isinstance(event, seen.AttemptFinished) else None
        effects = super().handle(event)
        if attempt is None or attempt.resume is None:
            return effects
        return [*effects, do.CompleteRequest(attempt.request.request_id)]


_PARTS = {
    Bug.LOSER_NEVER_RELEASED: Parts(state=_NeverReleases),
    Bug.STALE_FRAME_ACCEPTED: Parts(cursor=_CountsTokensOnly, links=_ForgetsWhose),
    Bug.FINISH_TWICE: Parts(state=_FinishesTwice),
}


def parts_with(bug: Bug | None) -> Parts:
    """What a run is made of."""
    return Parts() if bug is None else _PARTS[bug]
