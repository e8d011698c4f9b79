"""The relay: one caller's request, fed by the pieces of one attempt after another.

Pieces come straight from a link (`piece`), are judged by the commit cursor, and leave with one write per caller
and tick. Credit goes back to the node as the caller's transport drains, so that a slow reader holds at most
CREDIT_BYTES here and stops nobody else. This module is what whole, buffered and streamed answers share.

    waiting --first piece / headers_after--> open --finish / failure--> ended
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from shrk_contract.terms import CREDIT_BYTES, Fault
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.end_of_tick import EndOfTick
from shrk_coordinator.data_plane.errors import from_failure, from_refusal
from shrk_coordinator.data_plane.held import HeldBytes
from shrk_coordinator.data_plane.order import Call, Delivered, frames_of
from shrk_coordinator.errors import ApiError, stopping
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.attempts import REQUEST_SECONDS_MAX
from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict
from shrk_coordinator.state.events import FailureDetail, StreamId
from shrk_coordinator.state.stall import Paces
from shrk_coordinator.streams import Announcements, AttemptSink, LinkPort

#: Give credit back in steps of this size: small enough to keep a node busy, large enough to be rare.
CREDIT_STEP_BYTES = CREDIT_BYTES // 4
#: One event that comes in several pieces; an agent sends none that is longer.
EVENT_BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the callers' side waits for what, in seconds."""

    #: Without a piece, headers go out after this long, so that proxies and clients see life.
    headers_after: float = 10.0
    #: Between two signs of life in a slow answer.
    keep_alive: float = 10.0
    #: A caller that takes nothing for this long has given up, and its node has better things to do.
    caller_stall: float = 60.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all relays of one coordinator share."""

    links: LinkPort
    tell: Announcements
    patience: Patience = Patience()
    end_of_tick: EndOfTick = field(default_factory=EndOfTick)
    held: HeldBytes = field(default_factory=HeldBytes)
    paces: Paces = field(default_factory=Paces)


class Relay:
    """What streamed and whole answers share: attempts, the cursor and credit."""

    def __init__(self, call: Call, shared: Shared) -> None:
        self.call = call
        self.shared = shared
        self.cursor = CommitCursor()
        self.error: ApiError | None = None
        self.ended = False
        #: False where the prompt's tokens were never told: then the caller hears no usage rather than a wrong one.
        self.usage_known = True
        #: The node whose answer this is, once there is one.
        self.node_id = ""
        #: What has reached the caller, for another node to go on from.
        self._delivered = Delivered()
        #: How the answer ended, once its last token is here.
        self._end: link_pb2.ChoiceEnd | None = None
        self._attempt: do.StartAttempt | None = None
        #: The present attempt has shown nothing yet.
        self._first_due = True
        #: An event has begun whose last part is still to come.
        self._halfway = False
        #: Its parts, and their bytes: nothing of it counts as said.
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._links = shared.links
        self._tell = shared.tell
        self._wake = asyncio.Event()
        self._deadline = shared.tell.now() + REQUEST_SECONDS_MAX
        #: Bytes the current node may still send.
        self._credit = 0
        #: Bytes it sent that have been passed on, and not been given back as credit.
        self._spent = 0

    # --- the driver's port -------------------------------------------------------------------------

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        """An attempt starts, from the beginning or from where the cursor stands: the frames to send."""
        if effect.resume is None:
            self._start_over()
            self.cursor.admit(effect.stream)
        else:
            self.cursor.hand_on(effect.stream)
        self._attempt = effect
        self._first_due = True
        self._halfway = False
        self._partial.clear()
        self._partial_bytes = 0
        # What others sent and the caller has not read yet is this node's credit only once it has left.
        unread = self._unread_bytes()
        self._credit, self._spent = max(0, CREDIT_BYTES - unread), min(0, CREDIT_BYTES - unread)
        self.node_id = effect.node_id
        cursor, left = self.cursor, self._deadline - self._tell.now()
        return frames_of(self.call, effect, self._delivered, cursor.index, cursor.digest, left, self._credit)

    def sink(self) -> AttemptSink:
        """Where this request's pieces go."""
        assert self._attempt is not None
        return _Sink(self, self._attempt.stream)

    def refused(self, effect: do.RefuseRequest) -> None:
        """No node takes it."""
        self._give_up(from_refusal(effect))

    def failed(self, effect: do.FailRequest) -> None:
        """The last attempt failed, and there will be no other."""
        self._give_up(from_failure(effect.failure))

    def stopped(self) -> None:
        """The coordinator stops, and has no more time for it."""
        self._give_up(stopping())

    def completed(self) -> None:
        """All tokens came, and the node was lost before it could say so."""
        assert self._end is not None, "only an answer whose last token came is completed without its node"
        self.usage_known = bool(self._delivered.prompt)
        counted = link_pb2.Finish(
            end_index=self.cursor.index,
            choices=[self._end],
            prompt_tokens=len(self._delivered.prompt),
            completion_tokens=self.cursor.index,
        )
        self._end_with(counted)

    def stalled(self, now: float) -> StreamId | None:
        """The stream whose node sends nothing though it should, if it is so."""
        return None

    # --- what a node says ----------------------------------------------------------------------------

    def prompt(self, stream: StreamId, prompt: link_pb2.Prompt) -> None:
        """A part of the prompt's ids. The first attempt's are kept: a later one might read the prompt otherwise."""
        attempt = self._attempt
        if attempt is None or stream != attempt.stream or attempt.resume is not None or self.cursor.current is not None:
            return
        if not self._delivered.take_prompt(prompt):
            self._broken(stream, "it told the prompt's ids out of order")

    def piece(self, stream: StreamId, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """Judge one piece; pass it on where it is the next."""
        if self.ended or self._attempt is None or stream != self._attempt.stream:
            return
        if size > self._credit:
            # Before the cursor has moved: what it has passed counts as said, and the next node leaves it out.
            self._broken(stream, "it sent more than it had credit for")
            return
        verdict = self.cursor.accept(
            stream, piece.sequence, piece.first_index, piece.tokens, size, piece.text_digest, piece.more
        )
        if verdict is PieceVerdict.STALE:
            return
        if verdict is PieceVerdict.BROKEN:
            self._broken(stream, "it sent pieces out of order, or tokens with half an event")
            return
        self._credit -= size
        self._halfway = piece.more
        if piece.more:
            self._hold_part(stream, piece, part)
        else:
            self._take_whole(stream, piece, part)

    def _hold_part(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        """A part of an event that goes on: nothing of it is said before it is whole."""
        self._partial.append(part)
        self._partial_bytes += len(part)
        if self._partial_bytes > EVENT_BYTES_MAX:
            self._broken(stream, "it sent an event that is too long")
        else:
            self._passed_on(len(part))

    def _take_whole(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        if self._partial:
            held = self._partial_bytes
            part = b"".join((*self._partial, part))
            self._partial.clear()
            self._partial_bytes = 0
            # Their credit was given back when they came.
            self._spent -= held
        self._take(piece, part, self._first_due)
        self._first_due = False
        if piece.HasField("end"):
            self._end = piece.end
            self._last_token(stream)

    def finish(self, stream: StreamId, finish: link_pb2.Finish) -> None:
        """The node says that the answer is whole."""
        if self.ended or self._attempt is None or stream != self._attempt.stream:
            return
        if finish.end_index != self.cursor.index or self._halfway:
            self._broken(stream, f"it ended at token {finish.end_index} and had sent {self.cursor.index}")
            return
        self._end_with(finish)
        self._tell.finished(stream, self.cursor.index)

    def _end_with(self, finish: link_pb2.Finish) -> None:
        self._complete(finish)
        self.ended = True
        self._wake.set()

    def _broken(self, stream: StreamId, what: str) -> None:
        failure = FailureDetail(Fault.NODE, f"the node broke the contract: {what}", code="node_broke_contract")
        self._tell.broken(stream, failure)

    def _passed_on(self, size: int) -> None:
        """Bytes have left for the caller: let the node send as many more, in steps."""
        self._spent += size
        if self._spent >= CREDIT_STEP_BYTES and self._attempt is not None and not self.ended:
            self._credit += self._spent
            self._links.credit(self._attempt.link, self._attempt.stream, self._spent)
            self._spent = 0

    def _give_up(self, error: ApiError) -> None:
        if not self.ended:
            self.error = error
            self.ended = True
            self._wake.set()

    def let_go(self) -> None:
        """Nothing is held any more; the end of every relay."""

    @abstractmethod
    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer the caller; `headers` is asked when they are due. Raises ApiError before the first byte, and
        CallerGone once nobody is left to answer."""

    def _start_over(self) -> None:
        """Nothing of an earlier attempt has reached the caller: forget it."""
        self.cursor = CommitCursor()
        self._delivered = Delivered()

    @abstractmethod
    def _take(self, piece: link_pb2.Piece, part: bytes, first: bool) -> None:
        """Accepted events of the answer, whole; `first` of the present attempt."""

    def _last_token(self, stream: StreamId) -> None:
        """The answer's last token has been taken."""

    def _unread_bytes(self) -> int:
        """Bytes of the answer that are held here until the caller reads on."""
        return 0

    @abstractmethod
    def _complete(self, finish: link_pb2.Finish) -> None:
        """The answer is whole."""


class _Sink:
    """Takes one attempt's frames to its relay, under the stream's own name."""

    __slots__ = ("_relay", "_stream")

    def __init__(self, relay: Relay, stream: StreamId) -> None:
        self._relay = relay
        self._stream = stream

    def prompt(self, prompt: link_pb2.Prompt) -> None:
        self._relay.prompt(self._stream, prompt)

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        self._relay.piece(self._stream, piece, size, part)

    def finish(self, finish: link_pb2.Finish) -> None:
        self._relay.finish(self._stream, finish)
