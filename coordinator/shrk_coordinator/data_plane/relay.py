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

from shrk_contract.terms import CREDIT_BYTES, EVENT_BYTES_MAX, IDS_MAX, IDS_PER_FRAME, Fault
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.end_of_tick import EndOfTick
from shrk_coordinator.data_plane.errors import from_failure, from_refusal
from shrk_coordinator.data_plane.held import HeldBytes
from shrk_coordinator.data_plane.order import Call, Delivered, frames_of
from shrk_coordinator.data_plane.sink import StreamSink
from shrk_coordinator.errors import ApiError, overloaded, stopping
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.cursor import CommitCursor, PieceVerdict
from shrk_coordinator.state.events import FailureDetail, StreamId
from shrk_coordinator.state.request import REQUEST_SECONDS_MAX
from shrk_coordinator.state.stall import Paces
from shrk_coordinator.streams import Announcements, AttemptSink, LinkPort

#: Give credit back in steps of this size: small enough to keep a node busy, large enough to be rare.
CREDIT_STEP_BYTES = CREDIT_BYTES // 4
#: Token ids that are kept of one answer count among all that is held in steps of so many: most answers are shorter, and
#: cost nothing to count.
IDS_STEP = 4_096
#: Memory of one id.
ID_BYTES = 4


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
        #: The node whose answer this is, once there is one.
        self.node_id = ""
        #: What has reached the caller, for another node to go on from.
        self._delivered = Delivered()
        #: Bytes that its ids take of what may be held.
        self._ids_held = 0
        #: How the answer ended, and how long its prompt was, once its last token is here.
        self._end: link_pb2.ChoiceEnd | None = None
        self._prompt_tokens = 0
        self._attempt: do.StartAttempt | None = None
        #: Asked besides it, until one of the two says something; with the ids of its prompt.
        self._rival: tuple[do.StartAttempt, Delivered] | None = None
        #: The present attempt has shown nothing yet.
        self._first_due = True
        #: An event has begun whose last part is still to come.
        self._halfway = False
        #: Its parts, and their bytes: nothing of it counts as said.
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        #: What events in parts take of what may be held. Their credit was given back when they came, so that they
        #: count until they are on their way to the caller.
        self._events_held = 0
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
        left = self._deadline - self._tell.now()
        if effect.rival:
            self._admit_rival(effect)
            return frames_of(self.call, effect, Delivered(), 0, 0, left)
        self._rival = None
        if effect.resume is None:
            self._start_over()
            self.cursor.admit(effect.stream)
        else:
            self.cursor.hand_on(effect.stream)
        self._attempt = effect
        self._first_due = True
        self._drop_partial()
        # What others sent and the caller has not read yet is this node's credit only once it has left.
        unread = self._unread_bytes()
        self._credit, self._spent = max(0, CREDIT_BYTES - unread), min(0, CREDIT_BYTES - unread)
        self.node_id = effect.node_id
        cursor = self.cursor
        return frames_of(self.call, effect, self._delivered, cursor.index, cursor.digest, left, self._credit)

    def _admit_rival(self, effect: do.StartAttempt) -> None:
        if self.cursor.current is None:
            self.cursor.admit(effect.stream)
            self._rival = (effect, Delivered())
        else:
            # Half an event has come meanwhile, of which the state knows nothing: the race is over.
            self._tell.race_won(self.cursor.current)

    def sink(self, stream: StreamId) -> AttemptSink:
        """Where an attempt's pieces go."""
        return StreamSink(self, stream)

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
        counted = link_pb2.Finish(
            end_index=self.cursor.index,
            choices=[self._end],
            prompt_tokens=self._prompt_tokens or len(self._delivered.prompt),
            completion_tokens=self.cursor.index,
        )
        self._end_with(counted)

    def stalled(self, now: float) -> StreamId | None:
        """The stream whose node sends nothing though it should, if it is so."""
        return None

    # --- what a node says ----------------------------------------------------------------------------

    def prompt(self, stream: StreamId, prompt: link_pb2.Prompt) -> None:
        """A part of the prompt's ids. The first attempt's are kept: a later one might read the prompt otherwise."""
        # Nobody asked for those of an answer that is never continued.
        if self.ended or not self.call.tells_ids or self.cursor.current is not None:
            return
        if self._rival is not None and stream == self._rival[0].stream:
            # They count once it has won: a prompt's ids are few beside all that is held.
            if not self._rival[1].take_prompt(prompt):
                self._broken(stream, "it told the prompt's ids out of order, or too many")
            return
        attempt = self._attempt
        if attempt is None or stream != attempt.stream or attempt.resume is not None:
            return
        if not self._delivered.take_prompt(prompt):
            self._broken(stream, "it told the prompt's ids out of order, or too many")
        elif not self._hold_ids():
            self._forget_ids(stream)

    def _hold_ids(self) -> bool:
        """Count the ids that are kept; False where there is no room for more."""
        due = self._delivered.kept // IDS_STEP * IDS_STEP * ID_BYTES
        if due > self._ids_held:
            if not self.shared.held.take(due - self._ids_held):
                return False
            self._ids_held = due
        return True

    def _forget_ids(self, stream: StreamId) -> None:
        """Keep none: another node can still replay the answer."""
        self._delivered.forget_ids()
        self._give_back_ids()
        self._tell.ids_unknown(stream)

    def _give_back_ids(self) -> None:
        self.shared.held.give_back(self._ids_held)
        self._ids_held = 0

    def piece(self, stream: StreamId, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """Judge one piece; pass it on where it is the next."""
        if self.ended or not self._listens(stream, self._first_breach(stream, piece, size)):
            return
        if breach := self._breach(piece, size):
            # Before the cursor has moved: what it has passed counts as said, and the next node leaves it out.
            self._broken(stream, breach)
            return
        verdict = self.cursor.accept(
            stream, piece.sequence, piece.first_index, piece.tokens, piece.text_digest, piece.more
        )
        if verdict is PieceVerdict.STALE:
            return
        if verdict is PieceVerdict.BROKEN:
            self._broken(stream, "it sent pieces out of order, or tokens with half an event")
            return
        if self._rival is not None:
            self._rival = None
            self._tell.race_won(stream)
        self._credit -= size
        self._halfway = piece.more
        if piece.more:
            self._hold_part(stream, piece, part)
        else:
            self._take_whole(stream, piece, part)

    def _listens(self, stream: StreamId, breach: str) -> bool:
        """Whether this is the attempt whose answer it is. A rival is, from its first word on, unless that is a
        `breach`: then it only loses the race."""
        if self._rival is not None and stream == self._rival[0].stream:
            rival, self._rival = self._rival, None
            if breach:
                self._broken(stream, breach)
                return False
            self._swap(*rival)
            self._tell.race_won(stream)
        return self._attempt is not None and stream == self._attempt.stream

    def _first_breach(self, stream: StreamId, piece: link_pb2.Piece, size: int) -> str:
        """What is wrong with a rival's first piece, in words; empty where nothing is, or it is no rival's."""
        if self._rival is None or stream != self._rival[0].stream:
            return ""
        if piece.sequence or piece.first_index or (piece.more and piece.tokens):
            return "it sent pieces out of order, or tokens with half an event"
        credit, self._credit = self._credit, CREDIT_BYTES
        breach = self._breach(piece, size)
        self._credit = credit
        return breach

    def _swap(self, rival: do.StartAttempt, delivered: Delivered) -> None:
        """The rival was faster: nothing of the other has reached the caller."""
        self._start_over()
        self.cursor.admit(rival.stream)
        self._attempt, self._delivered, self.node_id = rival, delivered, rival.node_id
        self._drop_partial()
        self._credit, self._spent = CREDIT_BYTES, 0
        if not self._hold_ids():
            self._forget_ids(rival.stream)

    def _drop_partial(self) -> None:
        self._halfway = False
        self._give_back_events(self._partial_bytes)
        self._partial.clear()
        self._partial_bytes = 0

    def _breach(self, piece: link_pb2.Piece, size: int) -> str:
        """What no honest agent sends in one piece, in words; empty where it is well."""
        tokens = piece.tokens
        if size > self._credit:
            return "it sent more than it had credit for"
        if tokens > IDS_PER_FRAME or len(piece.token_ids) > tokens:
            return "it sent too many tokens in one piece, or ids of none"
        if self.cursor.index + tokens > IDS_MAX:
            return "it sent more tokens than any context has"
        if piece.more and not size:
            return "it sent an empty part of an event"
        if piece.HasField("end") and piece.end.index != self.call.choice_index:
            return "it ended another answer than it was asked for"
        return ""

    def _hold_part(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        """A part of an event that goes on: nothing of it is said before it is whole."""
        size = len(part)
        if self._partial_bytes + size > EVENT_BYTES_MAX:
            self._broken(stream, "it sent an event that is too long")
        elif not self.shared.held.take(size):
            self._give_up(overloaded())
        else:
            self._events_held += size
            self._partial.append(part)
            self._partial_bytes += size
            self._passed_on(size)

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
            self._end, self._prompt_tokens = piece.end, piece.prompt_tokens
            self._last_token(stream)

    def finish(self, stream: StreamId, finish: link_pb2.Finish) -> None:
        """The node says that the answer is whole."""
        early = f"it ended at token {finish.end_index} and had sent none" if finish.end_index else ""
        if self.ended or not self._listens(stream, early):
            return
        if finish.end_index != self.cursor.index or self._halfway:
            self._broken(stream, f"it ended at token {finish.end_index} and had sent {self.cursor.index}")
            return
        if why_not := self._why_not_whole(finish):
            self._broken(stream, why_not)
            return
        self._end_with(finish)
        # An answer in one document comes without its tokens being counted on the way.
        self._tell.finished(stream, self.cursor.index or finish.completion_tokens)

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
        if self._spent >= 0 and self._events_held > self._partial_bytes:
            self._give_back_events(self._events_held - self._partial_bytes)
        if self._spent >= CREDIT_STEP_BYTES and self._attempt is not None and not self.ended:
            self._credit += self._spent
            self._links.credit(self._attempt.link, self._attempt.stream, self._spent)
            self._spent = 0

    def _give_back_events(self, size: int) -> None:
        self.shared.held.give_back(size)
        self._events_held -= size

    def _give_up(self, error: ApiError) -> None:
        if not self.ended:
            self.error = error
            self.ended = True
            self._wake.set()

    def let_go(self) -> None:
        """Nothing is held any more, of what has come and of what may still come; the end of every relay."""
        self.ended = True
        self._partial.clear()
        self._partial_bytes = 0
        self._give_back_events(self._events_held)
        self._delivered.forget_ids()
        self._give_back_ids()

    @abstractmethod
    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Answer the caller; `headers` is asked when they are due. Raises ApiError before the first byte, and
        CallerGone once nobody is left to answer."""

    def _start_over(self) -> None:
        """Nothing of an earlier attempt has reached the caller: forget it."""
        self.cursor = CommitCursor()
        self._delivered = Delivered()
        self._give_back_ids()

    def _why_not_whole(self, finish: link_pb2.Finish) -> str:
        """Why a node's last word cannot be that of this answer; empty where it can."""
        return ""

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
