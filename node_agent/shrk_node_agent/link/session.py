"""One session on a link: frames in become orders, answers become frames.

gRPC stays in `dial`; here a session is an outbox to write to and batches to take in.
"""

from __future__ import annotations

import itertools
import time
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
)
from shrk_contract.terms import BODY_BYTES_MAX, PART_BYTES_MAX, Rejection, Report
from shrk_contract.v1 import link_pb2
from shrk_node_agent.attempts import AttemptSink, Credit, Envelope, Failed, Finished, Order
from shrk_node_agent.state.events import AttemptKey

NodeFrame = link_pb2.NodeFrame
StreamId = int

#: Orders whose body is still coming in parts; a coordinator sends each in one go.
ASSEMBLING_MAX = 1_000

_serials = itertools.count(1)

log = structlog.get_logger("shrk.link")


class CoordinatorBrokeContract(Exception):
    """The coordinator sent something the contract forbids; the link is dialled anew."""


@dataclass(slots=True)
class _Assembling:
    start: link_pb2.Start
    body: bytearray


@dataclass(slots=True)
class SessionPort:
    """What a session does to the rest of the agent."""

    #: An order came in whole; the answer goes to the given sink.
    ordered: Callable[[AttemptKey, Order, AttemptSink], None]
    #: The endpoint is one that this agent does not know.
    unknown: Callable[[AttemptSink], None]
    #: The coordinator wants an attempt stopped.
    cancelled: Callable[[AttemptKey], None]


class Session:
    """From welcome to the end of one link."""

    def __init__(self, port: SessionPort, write: Callable[[list[NodeFrame]], Awaitable[None]]) -> None:
        #: Unique in this agent's life.
        self.serial = next(_serials)
        self.outbox: Outbox[NodeFrame] = Outbox(write)
        self._port = port
        self._assembling: dict[StreamId, _Assembling] = {}
        self._sinks: dict[StreamId, SessionSink] = {}

    # --- coordinator to node -------------------------------------------------------------------------

    def take(self, batch: link_pb2.CoordinatorBatch) -> None:
        """Act on one batch. Raises CoordinatorBrokeContract."""
        for frame in batch.frames:
            match frame.WhichOneof("frame"):
                case "start":
                    self._start(frame.start)
                case "body":
                    self._body(frame.body)
                case "credit":
                    if sink := self._sinks.get(frame.credit.stream):
                        sink.credit.give(frame.credit.bytes)
                case "cancel":
                    self._cancel(frame.cancel.stream)
                case "tune":
                    self.outbox.hold_seconds = min(frame.tune.hold_pieces_ms, 50) / 1000
                case None:
                    pass  # a frame of a newer minor version
                case kind:
                    log.debug("frame not acted on yet", kind=kind)

    def _start(self, start: link_pb2.Start) -> None:
        if start.body_bytes > BODY_BYTES_MAX:
            raise CoordinatorBrokeContract(f"a request of {start.body_bytes:,} bytes")
        if len(start.body) >= start.body_bytes:
            self._order(start, start.body)
        elif len(self._assembling) >= ASSEMBLING_MAX:
            raise CoordinatorBrokeContract(f"{ASSEMBLING_MAX} requests begun and not sent whole")
        else:
            self._assembling[start.stream] = _Assembling(start, bytearray(start.body))

    def _body(self, part: link_pb2.Body) -> None:
        waiting = self._assembling.get(part.stream)
        if waiting is None:
            return  # cancelled meanwhile
        waiting.body += part.data
        if len(waiting.body) > waiting.start.body_bytes:
            raise CoordinatorBrokeContract("a request longer than it said")
        if len(waiting.body) == waiting.start.body_bytes:
            del self._assembling[part.stream]
            self._order(waiting.start, bytes(waiting.body))

    def _order(self, start: link_pb2.Start, body: bytes) -> None:
        sink = self._sinks[start.stream] = SessionSink(self, start.stream, Credit(start.credit_bytes))
        endpoint = endpoint_from_wire(start.endpoint)
        if endpoint is None:
            self._port.unknown(sink)
            return
        envelope = start.envelope
        order = Order(
            endpoint=endpoint,
            model=start.model,
            streaming=start.streaming,
            envelope=Envelope(envelope.id, envelope.created, envelope.model, envelope.tool_call_prefix),
            body=body,
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

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Say that nothing new is taken from now on."""
        drain = link_pb2.Drain(reason=reason, deadline_ms=int(deadline_seconds * 1000))
        self.outbox.send(NodeFrame(drain=drain))

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
    #: Nothing is sent any more: the attempt has ended, or was cancelled.
    closed: bool = False
    _sequence: int = 0
    _index: int = 0
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

    async def piece(self, tokens: int, token_ids: Sequence[int], part: bytes) -> None:
        """Send a part of the answer, in pieces of at most PART_BYTES_MAX; returns when there was credit.

        Raises CreditWithheld.
        """
        if not self._first_token_ms and tokens:
            self._first_token_ms = max(1, self._elapsed_ms())
        for first in range(0, max(1, len(part)), PART_BYTES_MAX):
            cut = part[first : first + PART_BYTES_MAX]
            await self.credit.spend(len(cut))
            # All tokens are counted with the first cut: the rest is the same tokens' bytes.
            here, ids = (tokens, token_ids) if first == 0 else (0, ())
            piece = link_pb2.Piece(
                stream=self.stream,
                sequence=self._sequence,
                first_index=self._index,
                tokens=here,
                token_ids=ids,
                data=cut,
            )
            self._sequence += 1
            self._index += here
            self._send(NodeFrame(piece=piece), len(cut))

    def finish(self, finished: Finished) -> None:
        """The answer is whole."""
        usage = finished.usage
        finish = link_pb2.Finish(
            stream=self.stream,
            end_index=self._index,
            choices=[
                link_pb2.ChoiceEnd(
                    index=end.index, finish_reason=end.finish_reason, stop_reason_json=end.stop_reason_json
                )
                for end in finished.choices
            ],
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
