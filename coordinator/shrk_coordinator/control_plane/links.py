"""All links to nodes, and one link: its outbox, its streams, and what its frames mean.

gRPC stays in `link_server`; here a link is an outbox to write to and batches to take in, so that tests and
the simulation can drive it without a socket.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import orjson

from shrk_contract.batching import Outbox, PeerNotReading
from shrk_contract.convert import fault_from_wire, rejection_from_wire, report_from_wire
from shrk_contract.terms import (
    PART_BYTES_MAX,
    PROTOCOL,
    REPORT_INTERVAL_SECONDS,
    SILENCE_SECONDS_MAX,
    Fault,
    ModelOutcome,
)
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_contract.v1.refusal_pb2 import (
    REFUSAL_CODE_CONTRACT_BROKEN,
    REFUSAL_CODE_COORDINATOR_STOPPING,
    REFUSAL_CODE_IDENTITY_COPIED,
    REFUSAL_CODE_NODE_SILENT,
    REFUSAL_CODE_SUPERSEDED,
    ProtocolVersion,
    Refusal,
)
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.events import Event, FailureDetail, LinkId, NodeId, StreamId
from shrk_coordinator.state.starts import ALONE_SECONDS
from shrk_coordinator.streams import AttemptSink

CoordinatorFrame = link_pb2.CoordinatorFrame

#: Text a node may put into an error that a caller sees, or into a report.
NODE_TEXT_MAX = 4_000
#: What a node may call the coordinator's fault: its deadline, and its credit.
OUR_FAULTS = frozenset({"deadline", "credit_withheld"})
#: Frames in one batch: an honest agent sends what became ready in a tick, one per stream and a few more.
BATCH_FRAMES_MAX = 16_384
#: Engines and devices of one machine.
REPORTED_MAX = 64
#: Names of models, hosts and devices; Hugging Face's own limit for an id is 96.
NAME_LENGTH_MAX = 300
#: Choices of one answer (callers may ask for 8, of 128 prompts), and the JSON of a usage or a stop reason.
CHOICES_MAX = 1_024
JSON_BYTES_MAX = 4_096
#: Certificates that a node asks for over one link: it needs one, and some more where the database is in trouble.
RENEWALS_MAX = 100
#: A node that sends anything counts as heard, told to the state at most this often: half as long as the time between
#: a busy node's signs of life.
HEARD_SECONDS = 0.5


class ContractBroken(Exception):
    """A node sent something the contract forbids; it is told so and its link is closed."""


class Link:
    """One node's link, from welcome to close."""

    def __init__(
        self,
        link_id: LinkId,
        node_id: NodeId,
        serial: str,
        live_streams: Sequence[StreamId],
        post: Callable[[Event], None],
        now: Callable[[], float],
        write: Callable[[list[CoordinatorFrame]], Awaitable[None]],
        on_refused: Callable[[Link], None],
        on_renew: Callable[[Link, str], None] = lambda link, csr_pem: None,
        on_asked: Callable[[Link, link_pb2.NodeFrame], None] = lambda link, frame: None,
    ) -> None:
        """`on_renew` hears that the node wants another certificate, for this signing request; `on_asked` what it asks
        about itself: its verdict, or a probe."""
        self.id = link_id
        self.node_id = node_id
        #: Serial of the certificate it opened with.
        self.serial = serial
        self.live_streams = live_streams
        self.outbox: Outbox[CoordinatorFrame] = Outbox(write)
        self.sinks: dict[StreamId, AttemptSink] = {}
        #: Why the link was closed from this side; the node hears it as its last frame.
        self.refusal: Refusal | None = None
        self.frames_received = 0
        self.batches_received = 0
        #: When its node was told its verdict, in monotonic seconds; and whether one more is due.
        self.verdict_told_at = -math.inf
        self.verdict_due = False
        self._post = post
        self._now = now
        self._on_refused = on_refused
        self._on_renew = on_renew
        self._renewals = 0
        self._on_asked = on_asked
        self._heard_at = now()

    def send(self, frame: CoordinatorFrame, body_bytes: int = 0) -> None:
        """Queue a frame; a node that does not read loses its link, and the server closes it."""
        if self.refusal is not None:
            return
        try:
            self.outbox.send(frame, body_bytes)
        except PeerNotReading as error:
            self.refuse(_broken(str(error)))

    def refuse(self, refusal: Refusal) -> None:
        """End the link with a word: the server sends it as the last frame, and closes."""
        if self.refusal is None:
            self.refusal = refusal
            self.sinks.clear()
            self._on_refused(self)

    def take(self, batch: link_pb2.NodeBatch) -> None:
        """Act on one batch. Raises ContractBroken."""
        sinks = self.sinks
        frames = batch.frames
        if len(frames) > BATCH_FRAMES_MAX:
            raise ContractBroken(f"a batch of {len(frames):,} frames; {BATCH_FRAMES_MAX:,} are the most")
        self.batches_received += 1
        self.frames_received += len(frames)
        if (now := self._now()) - self._heard_at > HEARD_SECONDS:
            self._heard_at = now
            self._post(seen.NodeHeard(now, self.node_id, self.id))
        for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "piece":
                piece = frame.piece
                sink = sinks.get(piece.stream)
                part = piece.data
                size = len(part)
                if size > PART_BYTES_MAX:
                    raise ContractBroken(f"a piece of {size:,} bytes; {PART_BYTES_MAX:,} are the most")
                if piece.HasField("end"):
                    _check_end(piece.end)
                # A stream without a sink was cancelled or lost its race: the node may not know yet.
                if sink is not None:
                    sink.piece(piece, size, part)
            elif kind is not None:
                self._take_transition(kind, frame)
            # None: a frame of a newer minor version, skipped.

    def _take_transition(self, kind: str, frame: link_pb2.NodeFrame) -> None:
        now = self._now()
        match kind:
            case "finish":
                if sink := self.sinks.get(frame.finish.stream):
                    sink.finish(_bounded_finish(frame.finish))
            case "prompt":
                if sink := self.sinks.get(frame.prompt.stream):
                    sink.prompt(frame.prompt)
            case "accepted":
                if frame.accepted.stream in self.sinks:
                    self._post(seen.AttemptAccepted(now, frame.accepted.stream))
            case "rejected":
                if frame.rejected.stream in self.sinks:
                    reason = rejection_from_wire(frame.rejected.reason)
                    self._post(seen.AttemptRejected(now, frame.rejected.stream, reason))
            case "failure":
                if frame.failure.stream in self.sinks:
                    self._post(seen.AttemptFailed(now, frame.failure.stream, _failure(frame.failure)))
            case "report":
                report = report_from_wire(_bounded_report(frame.report))
                self._post(seen.NodeReported(now, self.node_id, self.id, report))
            case "assign_result":
                result = _bounded_result(frame.assign_result)
                outcomes = tuple(ModelOutcome(o.model, o.obeyed, o.reason) for o in result.outcomes)
                self._post(seen.NodeAssigned(now, self.node_id, self.id, result.revision, outcomes))
            case "drain":
                self._post(seen.NodeDraining(now, self.node_id, self.id, frame.drain.deadline_ms / 1000))
            case "renew":
                self._renew(frame.renew.csr_pem)
            case "ask_verdict" | "probe":
                if len(frame.probe.model) > NAME_LENGTH_MAX:
                    raise ContractBroken("a probe of a model whose name is longer than any")
                self._on_asked(self, frame)
            case "hello":
                raise ContractBroken("a second hello on one link")
            case _:
                pass  # in the contract for what is to come; nothing here acts on it yet

    def _renew(self, csr_pem: str) -> None:
        self._renewals += 1
        if self._renewals > RENEWALS_MAX:
            raise ContractBroken(f"{self._renewals} certificates asked for over one link; {RENEWALS_MAX} are the most")
        self._on_renew(self, csr_pem)


class Links:
    """Every open link of this coordinator; the driver's `LinkPort`."""

    def __init__(self, boot_id: bytes, replicas: Sequence[str]) -> None:
        self._boot_id = boot_id
        self._replicas = replicas
        self._links: dict[LinkId, Link] = {}
        self._next = 1
        self.frames_of_closed = 0
        self.batches_of_closed = 0

    def new_id(self) -> LinkId:
        """A serial for the next link."""
        self._next += 1
        return self._next - 1

    def add(self, link: Link) -> None:
        """A node said hello; it is not admitted before the state says so."""
        self._links[link.id] = link

    def remove(self, link: Link) -> None:
        """The link is closed."""
        if self._links.pop(link.id, None):
            self.frames_of_closed += link.frames_received
            self.batches_of_closed += link.batches_received

    def all(self) -> list[Link]:
        """Every open link."""
        return list(self._links.values())

    def received(self) -> tuple[int, int]:
        """(frames, messages) received since the start."""
        frames = self.frames_of_closed + sum(link.frames_received for link in self._links.values())
        batches = self.batches_of_closed + sum(link.batches_received for link in self._links.values())
        return frames, batches

    # --- the driver's port -------------------------------------------------------------------------

    def welcome(self, effect: do.WelcomeNode) -> None:
        """Admit a node. Attempts that outlived an earlier link are cancelled: nothing of them was kept here."""
        if link := self._links.get(effect.link):
            major, minor = PROTOCOL
            welcome = link_pb2.Welcome(
                protocol=ProtocolVersion(major=major, minor=minor),
                node_id=effect.node_id,
                boot_id=self._boot_id,
                replicas=self._replicas,
                report_interval_ms=int(REPORT_INTERVAL_SECONDS * 1000),
                attempts=[link_pb2.AttemptVerdict(stream=s, keep=False) for s in link.live_streams],
            )
            link.send(CoordinatorFrame(welcome=welcome))

    def close(self, effect: do.CloseLink) -> None:
        """Say why, then close the link."""
        if link := self._links.get(effect.link):
            match effect.why:
                case do.Superseded():
                    refusal = Refusal(
                        code=REFUSAL_CODE_SUPERSEDED,
                        message="A newer start of this agent holds the node's link.",
                        remedy="Stop one of the two agents; if there is only one, its identity was copied.",
                        permanent=True,
                    )
                case do.Copied(words):
                    refusal = Refusal(
                        code=REFUSAL_CODE_IDENTITY_COPIED,
                        message=f"{link.node_id} is quarantined: {words}.",
                        remedy="Enrol one of them anew: stop its agent, remove its STATE_DIR/identity, and start it "
                        f"with a new join token. The other is let in {ALONE_SECONDS / 60:.0f} minutes after that.",
                        permanent=True,
                    )
                case do.Silent():
                    refusal = Refusal(
                        code=REFUSAL_CODE_NODE_SILENT,
                        message=f"Nothing was heard from this node for {SILENCE_SECONDS_MAX:g} s.",
                        remedy="The agent dials again by itself; if this happens often, see whether the machine "
                        "sleeps, is overloaded or has a bad line.",
                    )
            link.refuse(refusal)

    def assign(self, effect: do.AssignModels) -> None:
        """Tell a node which models to have loaded."""
        if link := self._links.get(effect.link):
            models = [link_pb2.AssignedModel(model=model) for model in effect.models]
            assign = link_pb2.Assign(leader_term=effect.leader_term, revision=effect.revision, models=models)
            link.send(CoordinatorFrame(assign=assign))

    def close_all(self) -> None:
        """The coordinator stops: tell every node to dial again soon."""
        for link in self.all():
            stopping = Refusal(
                code=REFUSAL_CODE_COORDINATOR_STOPPING,
                message="The coordinator is stopping.",
                remedy="Nothing to do: the agent dials again by itself.",
                retry_after_ms=1000,
            )
            link.refuse(stopping)

    def start(self, link: LinkId, stream: StreamId, frames: Sequence[CoordinatorFrame], sink: AttemptSink) -> bool:
        """Send the frames that start an attempt; False when the link is gone."""
        found = self._links.get(link)
        if found is None or found.refusal is not None:
            return False
        found.sinks[stream] = sink
        for frame in frames:
            found.send(frame, frame.ByteSize())
        return found.refusal is None

    def cancel(self, link: LinkId, stream: StreamId, reason: str) -> None:
        """Tell the node to stop, and drop whatever it still sends for the stream."""
        if found := self._links.get(link):
            found.sinks.pop(stream, None)
            found.send(CoordinatorFrame(cancel=link_pb2.Cancel(stream=stream, reason=reason)))

    def release(self, link: LinkId, stream: StreamId) -> None:
        """Drop whatever the node still sends for the stream."""
        if found := self._links.get(link):
            found.sinks.pop(stream, None)

    def credit(self, link: LinkId, stream: StreamId, size: int) -> None:
        """Let the node send this many bytes more."""
        if found := self._links.get(link):
            found.send(CoordinatorFrame(credit=link_pb2.Credit(stream=stream, bytes=size)))


def _bounded_result(result: link_pb2.AssignResult) -> link_pb2.AssignResult:
    """What a node did about an assignment, of a size that an honest one has. Raises ContractBroken."""
    if len(result.outcomes) > REPORTED_MAX:
        raise ContractBroken(f"{len(result.outcomes):,} outcomes of an assignment; {REPORTED_MAX} are the most")
    for outcome in result.outcomes:
        if len(outcome.model) > NODE_TEXT_MAX or len(outcome.reason) > NODE_TEXT_MAX:
            raise ContractBroken("an outcome of an assignment with too many words")
    return result


def _bounded_report(report: report_pb2.Report) -> report_pb2.Report:
    """A report of a size that an honest machine can have. Raises ContractBroken."""
    for what, count in (("engines", len(report.engines)), ("devices", len(report.devices))):
        if count > REPORTED_MAX:
            raise ContractBroken(f"a report with {count:,} {what}; {REPORTED_MAX} are the most")
    if report.ByteSize() > REPORTED_MAX * NODE_TEXT_MAX:
        raise ContractBroken(f"a report of {report.ByteSize():,} bytes")
    for engine in report.engines:
        if not 1 <= len(engine.model) <= NAME_LENGTH_MAX:
            raise ContractBroken(
                f"a model's name of {len(engine.model):,} characters; 1 to {NAME_LENGTH_MAX} are allowed"
            )
    return report


def _bounded_finish(finish: link_pb2.Finish) -> link_pb2.Finish:
    """A finish of a size that an honest answer can have, with JSON that can be read. Raises ContractBroken."""
    if len(finish.choices) > CHOICES_MAX:
        raise ContractBroken(f"an answer with {len(finish.choices):,} choices; {CHOICES_MAX:,} are the most")
    _check_json(finish.usage_json, dict)
    for end in finish.choices:
        _check_end(end)
    return finish


def _check_end(end: link_pb2.ChoiceEnd) -> None:
    """How an answer ended is for its caller to read: a reason, and not that it was given up. Raises ContractBroken."""
    _check_json(end.stop_reason_json, object)
    if len(end.finish_reason) > NAME_LENGTH_MAX:
        raise ContractBroken(f"a finish reason of {len(end.finish_reason):,} characters")
    if end.finish_reason in ("", "abort"):
        raise ContractBroken("an end without a reason")


def _check_json(text: bytes, kind: type) -> None:
    if len(text) > JSON_BYTES_MAX:
        raise ContractBroken(f"{len(text):,} bytes of JSON where {JSON_BYTES_MAX:,} are the most")
    if not text:
        return
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ContractBroken("JSON that cannot be read") from None
    if not isinstance(parsed, kind):
        raise ContractBroken("JSON of another kind than it should be")


def _failure(failure: link_pb2.Failure) -> FailureDetail:
    fault = fault_from_wire(failure.fault)
    if fault is Fault.COORDINATOR and failure.code not in OUR_FAULTS:
        # What would excuse the node has to be one of the things that we can have done.
        fault = Fault.NODE
    return FailureDetail(
        fault=fault,
        message=failure.message[:NODE_TEXT_MAX],
        http_status=failure.http_status,
        type=failure.type[:100],
        code=failure.code[:100],
        param=failure.param[:200],
    )


def _broken(what: str) -> Refusal:
    return Refusal(
        code=REFUSAL_CODE_CONTRACT_BROKEN,
        message=f"The link was closed: {what}.",
        remedy="Update the agent; if it is current, report this.",
        retry_after_ms=5000,
    )
