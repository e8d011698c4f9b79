"""Probes: a real request for one token, pinned to one node, on behalf of its owner and without a key.

It goes the way of every request: through the driver, over the node's link, into its engine, and back as pieces that
the commit cursor judges. Only nobody is written to: what comes is counted, and dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from shrk_contract.terms import PROBE_SECONDS_MAX, Endpoint
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Relay, Shared
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import FailureDetail, NodeId, ProbeArrived, RequestId, StreamId
from shrk_coordinator.state.probing import NotAsked, Probed, Target, explained, target
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.streams import RequestPort

#: What is asked, by how it is asked for. One token is enough: it has been through all that an answer goes through.
_BODIES: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT_COMPLETIONS: {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1, "stream": True},
    Endpoint.COMPLETIONS: {"prompt": "Say yes.", "max_tokens": 1, "stream": True},
    Endpoint.EMBEDDINGS: {"input": "yes"},
}


class Requests(Protocol):
    """What probes use of the driver."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def open(self, request: RequestPort, arrived: ProbeArrived) -> None:
        """A request wants a node."""
        ...

    def close(self, request_id: RequestId) -> None:
        """Nobody waits for the answer any more."""
        ...


class ProbeRelay(Relay):
    """Takes a probe's answer: counts its tokens, and notes when the first one came."""

    def __init__(self, call: Call, shared: Shared) -> None:
        super().__init__(call, shared)
        #: Of the first token, or of the first bytes where tokens are not told; monotonic seconds.
        self.spoke_at: float | None = None
        self.tokens = 0
        #: Why the node was not asked, in placement's words; None where it was.
        self.not_asked: str | None = None
        #: What the node, or its loss, ended it with.
        self.failure: FailureDetail | None = None

    async def until_ended(self) -> None:
        """Return when the answer is whole, or will not become so."""
        await self._wake.wait()

    def refused(self, effect: do.RefuseRequest) -> None:
        """The node is not asked, or did not take it."""
        if isinstance(effect.why, do.NoNode):
            self.not_asked = effect.why.counts[0][0] if effect.why.counts else ""
        super().refused(effect)

    def failed(self, effect: do.FailRequest) -> None:
        """The node was asked, and no token came of it."""
        self.failure = effect.failure
        super().failed(effect)

    def _take(self, piece: link_pb2.Piece, part: bytes, first: bool) -> None:
        self.tokens += piece.tokens
        if self.spoke_at is None and (piece.tokens or (part and not self.call.streaming)):
            self.spoke_at = self._tell.now()
        self._passed_on(len(part))

    def _hold_part(self, stream: StreamId, piece: link_pb2.Piece, part: bytes) -> None:
        # Nothing is delivered, so that half an event need not be kept until it is whole.
        self._passed_on(len(part))

    def _why_not_whole(self, finish: link_pb2.Finish) -> str:
        return "" if self.spoke_at is not None else "it ended an answer of which it had sent nothing"

    def _complete(self, finish: link_pb2.Finish) -> None:
        """Nobody reads the end of it."""

    async def respond(self, request: web.Request, headers: Callable[[], dict[str, str]]) -> web.StreamResponse:
        """Nobody waits for it over HTTP."""
        raise AssertionError("a probe has no caller")


class Prober:
    """Probes nodes, each at most once at a time."""

    def __init__(
        self,
        requests: Requests,
        shared: Shared,
        roster: Roster,
        random_bytes: Callable[[int], bytes],
        unix_ms: Callable[[], int],
        seconds_max: float = PROBE_SECONDS_MAX,
    ) -> None:
        self._requests = requests
        self._shared = shared
        self._roster = roster
        self._random_bytes = random_bytes
        self._unix_ms = unix_ms
        self._seconds_max = seconds_max
        self._under_way: set[NodeId] = set()

    async def __call__(self, node_id: NodeId, model: str) -> Probed:
        """Ask the node for one token of this model, or, where it is empty, of any that it serves."""
        if node_id in self._under_way:
            return Probed(False, "another probe of this node is under way", "Try again when it has ended.")
        found = target(self._roster, node_id, model, self._requests.now())
        if isinstance(found, NotAsked):
            return Probed(False, found.reason, found.next_action)
        self._under_way.add(node_id)
        try:
            return await self._ask(node_id, found)
        finally:
            self._under_way.discard(node_id)

    async def _ask(self, node_id: NodeId, what: Target) -> Probed:
        relay = ProbeRelay(self._call(what), self._shared)
        request_id, began = relay.call.request_id, self._requests.now()
        self._requests.open(relay, ProbeArrived(began, request_id, node_id, what.model, what.endpoint))
        try:
            async with asyncio.timeout(self._seconds_max):
                await relay.until_ended()
        except TimeoutError:
            why = f"no token came within {self._seconds_max:g} s"
            return Probed(False, why, "See what the engine does: shrk logs, on that machine.", what.model)
        finally:
            relay.let_go()
            self._requests.close(request_id)
        return self._outcome(node_id, relay, what, began)

    def _outcome(self, node_id: NodeId, relay: ProbeRelay, what: Target, began: float) -> Probed:
        if relay.not_asked is not None:
            why = explained(self._roster, node_id, relay.not_asked, self._requests.now())
            return Probed(False, why.reason, why.next_action, what.model)
        if relay.failure is not None:
            return Probed(False, relay.failure.message, "See what the engine does: shrk logs", what.model)
        if relay.error is not None:
            # The coordinator's own: it stops, or has no memory left.
            return Probed(False, relay.error.message, "Try again in a moment.", what.model)
        assert relay.spoke_at is not None, "an answer without anything in it is not whole"
        # A whole millisecond at least: 0 says that none came.
        return Probed(True, model=what.model, first_token_ms=max(1, round((relay.spoke_at - began) * 1000)))

    def _call(self, what: Target) -> Call:
        request_id, dialect = self._random_bytes(16), DIALECTS[what.endpoint]
        body = {"model": what.model, **_BODIES[what.endpoint]}
        return Call(
            request_id=request_id,
            dialect=dialect,
            envelope=Envelope(dialect.id_prefix + request_id.hex(), self._unix_ms() // 1000, what.model),
            body=orjson.dumps(body),
            streaming=bool(body.get("stream")),
            include_usage=False,
            # Nothing is delivered before the end, and so nothing has to go on from token ids.
            buffered=bool(body.get("stream")),
        )
