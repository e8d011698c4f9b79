"""One caller's request from its arrival to its end, as the product's HTTP shell sees it through."""

from __future__ import annotations

from collections.abc import Callable

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane.chunk_pipe import CallerGone
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.errors import ApiError
from shrk_coordinator.state.events import RequestArrived
from simulation.asks import Ask, Kind
from simulation.coordinator import Coordinator
from simulation.fibers import Fiber
from simulation.planted import Parts
from simulation.reader import Ending, Reader
from simulation.relays import CallerPipe, PlayedBuffered, PlayedStreamed, PlayedWhole, Witness

_RELAYS: dict[Kind, Callable[..., PlayedStreamed | PlayedWhole | PlayedBuffered]] = {
    Kind.STREAMED: PlayedStreamed,
    Kind.WHOLE: PlayedWhole,
    Kind.BUFFERED: PlayedBuffered,
}
_CHAT = DIALECTS[Endpoint.CHAT_COMPLETIONS]
#: From a caller's leaving to the moment at which its connection's end is noticed, where no write meets it before.
NOTICE_SECONDS_MAX = 0.2

#: Hears how a request ended, and with which error.
Ended = Callable[[Ending, str], None]


class Caller:
    """One request under way."""

    def __init__(
        self, coordinator: Coordinator, ask: Ask, reader: Reader, parts: Parts, witness: Witness, ended: Ended
    ) -> None:
        self.ask = ask
        self._coordinator = coordinator
        self._reader = reader
        self._ended = ended
        self._body = ask.body()
        streaming = ask.kind is not Kind.WHOLE
        call = Call(
            request_id=ask.request_id,
            dialect=_CHAT,
            envelope=Envelope(f"chatcmpl-{ask.number}", 0, ask.model),
            body=self._body,
            streaming=streaming,
            include_usage=ask.include_usage and streaming,
            seed=ask.seed,
            by_ids=ask.by_ids,
            buffered=ask.kind is Kind.BUFFERED,
            digest=ask.digest,
            affinity=ask.affinity,
        )
        shared = coordinator.shared
        relay = self._relay = _RELAYS[ask.kind](call, shared, parts.cursor, witness)
        self._pipe = CallerPipe(reader, coordinator.later, shared.patience.caller_stall)
        clock = coordinator.world.clock
        self._fiber = Fiber(clock, relay.converse(self._pipe), self._answered, (ApiError, CallerGone))

    def begin(self) -> None:
        """The request has passed its checks."""
        ask, coordinator = self.ask, self._coordinator
        held = coordinator.held.take(len(self._body))
        assert held, "what callers sent before has been let go of"
        if ask.leaves_after is not None:
            self._reader.read = self._has_read
        if ask.patience is not None:
            coordinator.later(ask.patience, self.leave)
        coordinator.driver.open(self._relay, self._arrived())
        self._fiber.run()

    def _arrived(self) -> RequestArrived:
        ask = self.ask
        return RequestArrived(
            self._coordinator.driver.now(),
            ask.request_id,
            ask.model,
            _CHAT.endpoint,
            streaming=ask.kind is Kind.STREAMED,
            by_ids=ask.by_ids,
            key_id="key",
            digest=ask.digest,
            affinity=ask.affinity,
        )

    def _has_read(self, count: int) -> None:
        assert self.ask.leaves_after is not None, "only callers who leave count"
        if count >= self.ask.leaves_after and not self._pipe.closed:
            self._pipe.closed = True
            coordinator = self._coordinator
            coordinator.later(coordinator.world.rng.random() * NOTICE_SECONDS_MAX, self.leave)

    def leave(self) -> None:
        """It is gone."""
        if not self._fiber.over:
            self._pipe.closed = True
            self._fiber.cancel()
            self._close(Ending.LEFT, "")

    def _answered(self, error: Exception | None) -> None:
        match error:
            case None:
                self._close(self._reader.ending(), self._reader.error)
            case ApiError():
                assert not self._reader.count, "an error in place of an answer came behind a part of it"
                self._close(Ending.ERROR, error.code)
            case _:
                self._close(Ending.LEFT, "")

    def _close(self, how: Ending, error: str) -> None:
        self._relay.let_go()
        self._coordinator.held.give_back(len(self._body))
        self._coordinator.driver.close(self.ask.request_id)
        self._ended(how, error)
