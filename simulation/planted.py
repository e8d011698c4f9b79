"""Bugs to plant: each is a part of the product with one thing wrong, which the simulation has to find.

Nothing of the product is touched; a run takes its parts from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from shrk_contract.v1 import link_pb2
from shrk_coordinator.control_plane.links import Link, Links
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.budget import Budget
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict
from shrk_coordinator.state.events import LinkId, NodeId, StreamId
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.suspects import Suspects
from shrk_coordinator.streams import AttemptSink


class Bug(StrEnum):
    """What can be planted."""

    LOSER_NEVER_RELEASED = "loser-never-released"
    STALE_FRAME_ACCEPTED = "stale-frame-accepted"
    FINISH_TWICE = "finish-twice"
    LOSER_NOT_CANCELLED = "loser-not-cancelled"
    HEDGES_WITHOUT_END = "hedges-without-end"
    RETRIES_WITHOUT_END = "retries-without-end"
    BREAKER_NEVER_OPENS = "breaker-never-opens"
    CRASHES_FORGOTTEN = "crashes-forgotten"
    PLACES_STAY_EMPTY = "places-stay-empty"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of, where it may be other than the product's own."""

    state: Callable[[Random], CoordinatorState] = CoordinatorState
    cursor: Callable[[], CommitCursor] = CommitCursor
    links: type[Links] = Links


class _NeverReleases(CoordinatorState):
    """An attempt that was handed over keeps its slot."""

    def handle(self, event: seen.Event) -> Sequence[do.Effect]:
        """Take in one fact."""
        attempts = dict(self.attempts.by_stream)
        effects = super().handle(event)
        for stream in (effect.stream for effect in effects if isinstance(effect, do.CancelAttempt)):
            attempt = attempts[stream]
            entry = self.journal.find(attempt.request.request_id)
            assert entry is not None, "what was under way a moment ago is remembered"
            offer = self.roster.offer_of(attempt.node_id, attempt.request.model, attempt.life)
            if offer is not None and entry.attempts[attempt.number - 1].outcome is Outcome.HANDED_OVER:
                offer.in_flight += 1
        return effects


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


class _RacesOn(CoordinatorState):
    """Of two attempts the slower one is never told to stop."""

    def handle(self, event: seen.Event) -> Sequence[do.Effect]:
        """Take in one fact."""
        effects = super().handle(event)
        if not isinstance(event, seen.RaceWon):
            return effects
        return [effect for effect in effects if not isinstance(effect, do.CancelAttempt)]


class _Spendthrift(Budget):
    """There is always something left."""

    def spend(self) -> bool:
        """Take one try."""
        super().spend()
        return True


class _Hedges(CoordinatorState):
    """A second node is asked whenever the first takes long."""

    def __init__(self, dice: Random) -> None:
        super().__init__(dice)
        self._dispatch._hedges = _Spendthrift(0.0)


class _Retries(CoordinatorState):
    """What failed is tried again, however much fails."""

    def __init__(self, dice: Random) -> None:
        super().__init__(dice)
        self._dispatch._retries = _Spendthrift(0.0)


class _NeverOpens(CoordinatorState):
    """A node that fails is asked as if nothing had been."""

    def handle(self, event: seen.Event) -> Sequence[do.Effect]:
        """Take in one fact."""
        for node in self.roster.nodes.values():
            for standing in node.standings.values():
                standing.breaker.opened = 0
        return super().handle(event)


class _Forgives(Suspects):
    """However many engines crash of a request, it is sent to the next."""

    def blame(self, now: float, digest: bytes, node: NodeId, life: EngineLife) -> None:
        """An engine of this node crashed of it."""


class _CrashesOn(CoordinatorState):
    """Nobody remembers what engines crashed of."""

    def __init__(self, dice: Random) -> None:
        super().__init__(dice)
        self._dispatch.asking.suspects = self._dispatch._suspects = _Forgives()


class _Idles(CoordinatorState):
    """Whoever waits for a node is forgotten until it is too late."""

    def handle(self, event: seen.Event) -> Sequence[do.Effect]:
        """Take in one fact."""
        waiting = [] if isinstance(event, seen.RequestArrived) else list(self.attempts.waiting)
        for request in waiting:
            self.attempts.waiting.leave(request)
        effects = super().handle(event)
        for request in waiting:
            if request.request_id in self.attempts.requests and request.current is None:
                self.attempts.waiting.join(event.now, request, request.lost)
        return effects


_PARTS = {
    Bug.LOSER_NEVER_RELEASED: Parts(state=_NeverReleases),
    Bug.STALE_FRAME_ACCEPTED: Parts(cursor=_CountsTokensOnly, links=_ForgetsWhose),
    Bug.FINISH_TWICE: Parts(state=_FinishesTwice),
    Bug.LOSER_NOT_CANCELLED: Parts(state=_RacesOn),
    Bug.HEDGES_WITHOUT_END: Parts(state=_Hedges),
    Bug.RETRIES_WITHOUT_END: Parts(state=_Retries),
    Bug.BREAKER_NEVER_OPENS: Parts(state=_NeverOpens),
    Bug.CRASHES_FORGOTTEN: Parts(state=_CrashesOn),
    Bug.PLACES_STAY_EMPTY: Parts(state=_Idles),
}


def parts_with(bug: Bug | None) -> Parts:
    """What a run is made of."""
    return Parts() if bug is None else _PARTS[bug]
