"""The frames that start an attempt: the order itself, the rest of the body, and the ids to go on from."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from shrk_contract.convert import endpoint_to_wire, resume_method_to_wire
from shrk_contract.terms import CREDIT_BYTES, IDS_MAX, IDS_PER_FRAME, PART_BYTES_MAX, ResumeMethod
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects import Dialect
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.state import effects as do

Frame = link_pb2.CoordinatorFrame


@dataclass(frozen=True, slots=True)
class Call:
    """One request that passed its checks."""

    request_id: bytes
    dialect: Dialect
    envelope: Envelope
    body: bytes
    streaming: bool
    include_usage: bool
    #: For the engine, where the body names none.
    seed: int = 0
    #: The answer may go on from token ids.
    by_ids: bool = False
    #: Nothing is sent before the answer is whole, though it is streamed.
    buffered: bool = False
    #: Which of several answers this is.
    choice_index: int = 0
    key_id: str = ""
    #: The first of a few answers to one request, where this is another of them.
    sibling_of: bytes = b""
    #: Of all that the caller sent.
    digest: bytes = b""
    #: Of what it shares with the other turns of its conversation; 0: nothing.
    affinity: int = 0

    @property
    def tells_ids(self) -> bool:
        """Whether its answer may have to be continued, so that nodes are asked for token ids."""
        return self.streaming and not self.buffered


@dataclass(slots=True)
class Delivered:
    """What of one answer reached its caller, as far as another node must know it. Four bytes a token."""

    prompt: array[int] = field(default_factory=lambda: array("I"))
    ids: array[int] = field(default_factory=lambda: array("I"))
    #: Every token so far came with its id, and all are kept.
    ids_known: bool = True

    @property
    def kept(self) -> int:
        """Ids that are held here, of prompt and answer."""
        return len(self.prompt) + len(self.ids)

    def forget_ids(self) -> None:
        """Keep none, and none of those to come."""
        self.prompt, self.ids, self.ids_known = array("I"), array("I"), False

    def take_prompt(self, prompt: link_pb2.Prompt) -> bool:
        """A part of the prompt's ids; False where it does not fit what came before, or no context would hold it."""
        if not self.ids_known:
            return True
        if prompt.first_index != len(self.prompt) or len(self.prompt) + len(prompt.token_ids) > IDS_MAX:
            return False
        self.prompt.extend(prompt.token_ids)
        return True

    def take(self, piece: link_pb2.Piece) -> bool:
        """A delivered piece's ids; False where with it they ceased to be known."""
        if not self.ids_known:
            return True
        if not self.prompt or len(piece.token_ids) != piece.tokens or self.kept + piece.tokens > IDS_MAX:
            self.ids_known = False
            return False
        self.ids.extend(piece.token_ids)
        return True


def frames_of(
    call: Call,
    effect: do.StartAttempt,
    delivered: Delivered,
    tokens: int,
    text_digest: int,
    seconds_left: float,
    credit: int = CREDIT_BYTES,
) -> list[Frame]:
    """The start frame, then the parts. `tokens`, `text_digest`: where the commit cursor stands. `credit` in bytes."""
    body = memoryview(call.body)
    start = link_pb2.Start(
        stream=effect.stream,
        request_id=call.request_id,
        attempt=effect.attempt,
        endpoint=endpoint_to_wire(call.dialect.endpoint),
        model=call.envelope.model,
        streaming=call.streaming,
        envelope=link_pb2.Envelope(
            id=call.envelope.id,
            created=call.envelope.created,
            model=call.envelope.model,
            tool_call_prefix=f"call_{call.request_id.hex()[:16]}_",
            choice_index=call.choice_index,
        ),
        body_bytes=len(body),
        body=bytes(body[:PART_BYTES_MAX]),
        credit_bytes=credit,
        seed=call.seed,
        deadline_ms=max(1, int(seconds_left * 1000)),
        tell_ids=call.tells_ids,
    )
    by_ids = effect.resume is ResumeMethod.BY_IDS
    if effect.resume is not None:
        resume = link_pb2.Resume(
            method=resume_method_to_wire(effect.resume),
            prompt_tokens=len(delivered.prompt) if by_ids else 0,
            delivered_tokens=tokens,
            text_digest=text_digest,
        )
        start.resume.CopyFrom(resume)
    rest = range(PART_BYTES_MAX, len(body), PART_BYTES_MAX)
    parts = [link_pb2.Body(stream=effect.stream, data=bytes(body[i : i + PART_BYTES_MAX])) for i in rest]
    prefixes = _prefixes(effect.stream, delivered) if by_ids else []
    return [Frame(start=start), *(Frame(body=part) for part in parts), *(Frame(prefix=part) for part in prefixes)]


def _prefixes(stream: int, delivered: Delivered) -> list[link_pb2.Prefix]:
    def cuts(ids: array[int]) -> list[array[int]]:
        return [ids[i : i + IDS_PER_FRAME] for i in range(0, len(ids), IDS_PER_FRAME)]

    return [
        *(link_pb2.Prefix(stream=stream, prompt_token_ids=cut) for cut in cuts(delivered.prompt)),
        *(link_pb2.Prefix(stream=stream, delivered_token_ids=cut) for cut in cuts(delivered.ids)),
    ]
