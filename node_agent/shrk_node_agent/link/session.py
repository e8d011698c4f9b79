"""One session on a link: frames in become orders, answers become frames.

gRPC stays in `dial`; here a session is an outbox to write to and batches to take in.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import orjson
import structlog

from shrk_contract.batching import Outbox
from shrk_contract.convert import (
    endpoint_from_wire,
    fault_to_wire,
    rejection_to_wire,
    report_to_wire,
    resume_method_from_wire,
)
from shrk_contract.terms import BODY_BYTES_MAX, IDS_MAX, IDS_PER_FRAME, PART_BYTES_MAX, ModelOutcome, Rejection, Report
from shrk_contract.v1 import link_pb2
from shrk_node_agent.attempts import (
    AttemptSink,
    ChoiceEnd,
    Credit,
    Envelope,
    Failed,
    Finished,
    Order,
    Piece,
    Resume,
)
from shrk_node_agent.link.questions import Questions
from shrk_node_agent.state.events import AttemptKey

NodeFrame = link_pb2.NodeFrame
StreamId = int

#: Orders whose body is still coming in parts; a coordinator sends each in one go.
ASSEMBLING_MAX = 1_000
#: Models that one node is assigned; no catalogue that people write is longer.
ASSIGNED_MAX = 1_000

_serials = itertools.count(1)

log = structlog.get_logger("shrk.link")


class CoordinatorBrokeContract(Exception):
    """The coordinator sent something the contract forbids; the link is dialled anew."""


@dataclass(slots=True)
class _Assembling:
    """An order whose body, or whose ids, still come in parts."""

    start: link_pb2.Start
    body: bytearray
    prompt_ids: array[int] = field(default_factory=lambda: array("I"))
    delivered_ids: array[int] = field(default_factory=lambda: array("I"))

    def missing(self) -> int:
        """Bytes and ids still to come; negative where there were too many of any."""
        start, resume = self.start, self.start.resume
        by_ids = resume.method == link_pb2.RESUME_METHOD_BY_IDS
        missing = (
            start.body_bytes - len(self.body),
            (resume.prompt_tokens if by_ids else 0) - len(self.prompt_ids),
            (resume.delivered_tokens if by_ids else 0) - len(self.delivered_ids),
        )
        return min(missing) if min(missing) < 0 else sum(missing)


@dataclass(slots=True)
class SessionPort:
    """What a session does to the rest of the agent."""

    #: An order came in whole; the answer goes to the given sink.
    ordered: Callable[[AttemptKey, Order, AttemptSink], None]
    #: The endpoint is one that this agent does not know.
    unknown: Callable[[AttemptSink], None]
    #: The coordinator wants an attempt stopped.
    cancelled: Callable[[AttemptKey], None]
    #: The coordinator wants these models here: leader term, revision, names.
    assigned: Callable[[int, int, tuple[str, ...]], None]


class Session:
    """From welcome to the end of one link."""

    def __init__(self, port: SessionPort, write: Callable[[list[NodeFrame]], Awaitable[None]]) -> None:
        #: Unique in this agent's life.
        self.serial = next(_serials)
        self.outbox: Outbox[NodeFrame] = Outbox(write)
        #: What this node asks about itself.
        self.questions = Questions(self.outbox.send)
        self._port = port
        self._assembling: dict[StreamId, _Assembling] = {}
        self._sinks: dict[StreamId, SessionSink] = {}
        #: Hears the answer to `renew`.
        self.renewed: Callable[[link_pb2.Renewed], None] = lambda renewed: None

    # --- coordinator to node -------------------------------------------------------------------------

    def take(self, batch: link_pb2.CoordinatorBatch) -> None:
        """Act on one batch. Raises CoordinatorBrokeContract."""
        for frame in batch.frames:
            match frame.WhichOneof("frame"):
                case "start":
                    self._start(frame.start)
                case "body":
                    self._body(frame.body)
                case "prefix":
                    self._prefix(frame.prefix)
                case "credit":
                    if sink := self._sinks.get(frame.credit.stream):
                        sink.credit.give(frame.credit.bytes)
                case "cancel":
                    self._cancel(frame.cancel.stream)
                case "assign":
                    models = tuple(model.model for model in frame.assign.models[:ASSIGNED_MAX])
                    self._port.assigned(frame.assign.leader_term, frame.assign.revision, models)
                case "renewed":
                    self.renewed(frame.renewed)
                case "verdict":
                    self.questions.verdict_told(frame.verdict)
                case "probe_result":
                    self.questions.probed(frame.probe_result)
                case "tune":
                    self.outbox.hold_seconds = min(frame.tune.hold_pieces_ms, 50) / 1000
                case None:
                    pass  # a frame of a newer minor version
                case kind:
                    log.debug("frame not acted on yet", kind=kind)

    def _start(self, start: link_pb2.Start) -> None:
        if too_large := _too_large(start):
            # What one request grew to must not cost the others their link.
            SessionSink(self, start.stream, Credit(0)).reject(Rejection.UNSUPPORTED, too_large)
            return
        waiting = self._assembling[start.stream] = _Assembling(start, bytearray(start.body))
        self._assembled(waiting)
        if len(self._assembling) > ASSEMBLING_MAX:
            raise CoordinatorBrokeContract(f"more than {ASSEMBLING_MAX} requests begun and not sent whole")

    def _body(self, part: link_pb2.Body) -> None:
        if waiting := self._assembling.get(part.stream):  # else it was cancelled meanwhile
            waiting.body += part.data
            self._assembled(waiting)

    def _prefix(self, part: link_pb2.Prefix) -> None:
        if waiting := self._assembling.get(part.stream):
            waiting.prompt_ids.extend(part.prompt_token_ids)
            waiting.delivered_ids.extend(part.delivered_token_ids)
            self._assembled(waiting)

    def _assembled(self, waiting: _Assembling) -> None:
        missing = waiting.missing()
        if missing < 0:
            raise CoordinatorBrokeContract("a request longer than it said")
        if missing == 0:
            del self._assembling[waiting.start.stream]
            self._order(waiting)

    def _order(self, whole: _Assembling) -> None:
        start = whole.start
        already = start.resume.delivered_tokens
        sink = self._sinks[start.stream] = SessionSink(self, start.stream, Credit(start.credit_bytes), already)
        endpoint = endpoint_from_wire(start.endpoint)
        if endpoint is None:
            self._port.unknown(sink)
            return
        resume = _resume(whole) if start.HasField("resume") else None
        if resume is None and start.HasField("resume"):
            sink.reject(Rejection.UNSUPPORTED, "this agent does not know that way of going on with an answer")
            return
        envelope = start.envelope
        order = Order(
            endpoint=endpoint,
            model=start.model,
            streaming=start.streaming,
            envelope=Envelope(
                envelope.id, envelope.created, envelope.model, envelope.tool_call_prefix, envelope.choice_index
            ),
            body=bytes(whole.body),
            seed=start.seed if start.HasField("seed") else None,
            resume=resume,
            deadline_seconds=start.deadline_ms / 1000 if start.deadline_ms else None,
            tell_ids=start.tell_ids,
        )
        self._port.ordered(sink.key, order, sink)

    def _cancel(self, stream: StreamId) -> None:
        self._assembling.pop(stream, None)
        if sink := self._sinks.pop(stream, None):
            sink.closed = True
            self._port.cancelled(sink.key)

    # --- node to coordinator -------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Send a report with the next batch."""
        self.outbox.send(NodeFrame(report=report_to_wire(report)), 1_000)

    def assign_result(self, leader_term: int, revision: int, outcomes: Sequence[ModelOutcome]) -> None:
        """Say what was done about an assignment."""
        told = [link_pb2.ModelOutcome(model=o.model, obeyed=o.obeyed, reason=o.reason) for o in outcomes]
        result = link_pb2.AssignResult(leader_term=leader_term, revision=revision, outcomes=told)
        self.outbox.send(NodeFrame(assign_result=result))

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Say that nothing new is taken from now on."""
        drain = link_pb2.Drain(reason=reason, deadline_ms=int(deadline_seconds * 1000))
        self.outbox.send(NodeFrame(drain=drain))

    def renew(self, csr_pem: str) -> None:
        """Ask for a new certificate."""
        self.outbox.send(NodeFrame(renew=link_pb2.Renew(csr_pem=csr_pem)), len(csr_pem))

    def is_idle(self) -> bool:
        """Whether nothing is under way on this link."""
        return not self._sinks and not self._assembling

    def forget(self, stream: StreamId) -> None:
        """An attempt ended."""
        self._sinks.pop(stream, None)

    def open_attempts(self) -> list[AttemptKey]:
        """Attempts under way on this link."""
        return [sink.key for sink in self._sinks.values()]


@dataclass(slots=True)
class SessionSink:
    """Takes one attempt's answer to its coordinator."""

    session: Session
    stream: StreamId
    credit: Credit
    #: Of the next token, counted from the start of the answer, whoever gave it.
    _index: int = 0
    #: Nothing is sent any more: the attempt has ended, or was cancelled.
    closed: bool = False
    _sequence: int = 0
    _began: float = field(default_factory=time.monotonic)
    _first_token_ms: int = 0

    @property
    def key(self) -> AttemptKey:
        """This attempt's name in the agent."""
        return self.session.serial, self.stream

    def accept(self) -> None:
        """The attempt is taken on."""
        # Nobody waits for it but a deadline of seconds: it travels with the first piece where that comes soon.
        self._send(NodeFrame(accepted=link_pb2.Accepted(stream=self.stream)), patient=True)

    def reject(self, reason: Rejection, message: str) -> None:
        """The attempt is not taken on."""
        rejected = link_pb2.Rejected(stream=self.stream, reason=rejection_to_wire(reason), message=message)
        self._end(NodeFrame(rejected=rejected))

    def prompt(self, token_ids: Sequence[int]) -> None:
        """The prompt as the engine tokenised it, in frames that block nobody."""
        for first in range(0, len(token_ids), IDS_PER_FRAME):
            ids = token_ids[first : first + IDS_PER_FRAME]
            prompt = link_pb2.Prompt(stream=self.stream, first_index=first, token_ids=ids)
            self._send(NodeFrame(prompt=prompt), len(ids) * 4, patient=True)

    async def piece(self, piece: Piece) -> None:
        """Send a part of the answer, in pieces of at most PART_BYTES_MAX; returns when there was credit.

        The last of them brings the tokens: what is lost before it has not been said. Raises CreditWithheld.
        """
        part = piece.part
        if not self._first_token_ms and piece.tokens:
            self._first_token_ms = max(1, self._elapsed_ms())
        last = max(0, len(part) - 1) // PART_BYTES_MAX * PART_BYTES_MAX
        for first in range(0, last, PART_BYTES_MAX):
            cut = part[first : first + PART_BYTES_MAX]
            await self.credit.spend(len(cut))
            self._piece(link_pb2.Piece(data=cut, more=True), len(cut))
        rest = part[last:]
        await self.credit.spend(len(rest))
        whole = link_pb2.Piece(tokens=piece.tokens, token_ids=piece.token_ids, data=rest, text_digest=piece.text_digest)
        if piece.end is not None:
            whole.end.CopyFrom(_choice_end(piece.end))
            whole.prompt_tokens = piece.prompt_tokens
        self._piece(whole, len(rest))
        self._index += piece.tokens

    def _piece(self, piece: link_pb2.Piece, size: int) -> None:
        piece.stream, piece.sequence, piece.first_index = self.stream, self._sequence, self._index
        self._sequence += 1
        self._send(NodeFrame(piece=piece), size)

    def finish(self, finished: Finished) -> None:
        """The answer is whole."""
        usage = finished.usage
        finish = link_pb2.Finish(
            stream=self.stream,
            end_index=self._index,
            choices=[_choice_end(end) for end in finished.choices],
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            usage_json=orjson.dumps(usage) if usage else b"",
            first_token_ms=self._first_token_ms,
            total_ms=self._elapsed_ms(),
        )
        self._end(NodeFrame(finish=finish))

    def fail(self, failed: Failed) -> None:
        """The answer will not become whole."""
        failure = link_pb2.Failure(
            stream=self.stream,
            fault=fault_to_wire(failed.fault),
            http_status=failed.http_status,
            code=failed.code,
            message=failed.message,
            type=failed.type,
            param=failed.param,
        )
        self._end(NodeFrame(failure=failure))

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _send(self, frame: NodeFrame, body_bytes: int = 0, *, patient: bool = False) -> None:
        if not self.closed:
            self.session.outbox.send(frame, body_bytes, patient=patient)

    def _end(self, frame: NodeFrame) -> None:
        self._send(frame, 200)
        self.closed = True
        self.session.forget(self.stream)


def _too_large(start: link_pb2.Start) -> str:
    """Why an order is more than any request needs; empty where it is not."""
    if start.body_bytes > BODY_BYTES_MAX:
        return f"a request of {start.body_bytes:,} bytes; {BODY_BYTES_MAX:,} are the most"
    ids = start.resume.prompt_tokens + start.resume.delivered_tokens
    return f"{ids:,} tokens to go on from; {IDS_MAX:,} are the most" if ids > IDS_MAX else ""


def _resume(whole: _Assembling) -> Resume | None:
    """What other nodes delivered of this answer; None where a newer coordinator names another way of going on."""
    resume = whole.start.resume
    method = resume_method_from_wire(resume.method)
    if method is None:
        return None
    return Resume(method, resume.delivered_tokens, resume.text_digest, whole.prompt_ids, whole.delivered_ids)


def _choice_end(end: ChoiceEnd) -> link_pb2.ChoiceEnd:
    return link_pb2.ChoiceEnd(index=end.index, finish_reason=end.finish_reason, stop_reason_json=end.stop_reason_json)
