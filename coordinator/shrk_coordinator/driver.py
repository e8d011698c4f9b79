"""The driver: takes events to the state, and carries out the effects. It owns the clock and the tick.

Events may be posted from within an effect (a link that turns out to be gone): they queue behind the effects
under way, so that the state sees one fact at a time and effects keep their order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

import structlog

from shrk_contract.terms import Fault
from shrk_contract.turns import Turns
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, FailureDetail, RequestId, StreamId
from shrk_coordinator.streams import LinkPort, RequestPort

#: Deadlines are seconds long; a quarter of a second late is early enough, and costs nothing.
TICK_SECONDS = 0.25
#: What an assignment moves takes minutes.
RECONCILE_SECONDS = 1.0
#: A loop that was held up longer than this may have pieces waiting that it has not read: nobody has stalled then.
LAG_SECONDS_MAX = 0.5

log = structlog.get_logger("shrk.driver")


class Driver:
    """One per coordinator. All methods run in the event loop and return at once."""

    def __init__(
        self,
        metrics: Metrics,
        term: int = 0,
        dice: Dice | None = None,
        turned: Callable[[float], None] = lambda now: None,
    ) -> None:
        """`term`: grows with every start of a coordinator, such as the time. `dice`: draws the nodes that are looked at
        where there are many. `turned` hears at every tick that the loop turns."""
        self._turned = turned
        self.state = CoordinatorState(dice, term)
        self._metrics = metrics
        self._links: LinkPort | None = None
        self._requests: dict[RequestId, RequestPort] = {}
        self._turns = Turns(self._take)
        self._idle = asyncio.Event()
        self._idle.set()
        #: How late the last tick came: the loop's lag.
        self.lag_seconds = 0.0

    def connect(self, links: LinkPort) -> None:
        """Give the driver its links; once, before the first event."""
        self._links = links

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def run(self) -> None:
        """Tick until cancelled."""
        reconciled_at = self.now()
        while True:
            before = self.now()
            if before - reconciled_at >= RECONCILE_SECONDS:
                reconciled_at = before
                self.post(seen.Reconcile(before))
            await asyncio.sleep(TICK_SECONDS)
            self.lag_seconds = max(0.0, self.now() - before - TICK_SECONDS)
            self._metrics.ticked(self.lag_seconds)
            self.post(seen.Tick(self.now()))
            self._turned(self.now())
            if self.lag_seconds < LAG_SECONDS_MAX:
                self._look_for_stalls()

    def _look_for_stalls(self) -> None:
        now = self.now()
        for request in list(self._requests.values()):
            if (stream := request.stalled(now)) is not None:
                self.post(seen.AttemptStalled(now, stream))

    def post(self, event: Event) -> None:
        """Take in one fact and carry out what follows from it."""
        self._turns.post(event)

    def _take(self, event: Event) -> None:
        for effect in self.state.handle(event):
            self._carry_out_guarded(effect)

    # --- requests --------------------------------------------------------------------------------

    def open(self, request: RequestPort, arrived: seen.RequestArrived | seen.ProbeArrived) -> None:
        """A request wants a node; its port hears what becomes of it."""
        self._requests[arrived.request_id] = request
        self._idle.clear()
        self.post(arrived)

    def close(self, request_id: RequestId) -> None:
        """The caller has its answer, or is gone: whatever still runs for it is cancelled."""
        del self._requests[request_id]
        self.post(seen.CallerLeft(self.now(), request_id))
        if not self._requests:
            self._idle.set()

    def stop_requests(self) -> None:
        """End every request under way: the coordinator stops. `idle` tells when their callers have heard it."""
        for request in list(self._requests.values()):
            request.stopped()

    async def idle(self) -> None:
        """Return once no request is under way."""
        await self._idle.wait()

    @property
    def open_requests(self) -> int:
        """Requests under way."""
        return len(self._requests)

    # --- what relays and links announce ------------------------------------------------------------

    def first_piece(self, stream: StreamId, index: int) -> None:
        """An attempt's first piece goes to the caller."""
        self.post(seen.FirstPieceDelivered(self.now(), stream, index))

    def race_won(self, stream: StreamId) -> None:
        """Of two attempts this one has said something first."""
        self.post(seen.RaceWon(self.now(), stream))

    def continued(self, attempt: do.StartAttempt, gap: float) -> None:
        """An answer goes on from another node."""
        assert attempt.resume is not None, "only what was delivered is continued"
        log.info(
            "an answer goes on from another node",
            request=attempt.request_id.hex(),
            node=attempt.node_id,
            method=str(attempt.resume),
            after=attempt.after[:64],
            gap_ms=round(gap * 1000),
        )
        self._metrics.continued(attempt.resume, attempt.after, gap)

    def ids_unknown(self, stream: StreamId) -> None:
        """The engine did not tell all token ids."""
        self.post(seen.IdsUnknown(self.now(), stream))

    def last_token(self, stream: StreamId, tokens: int) -> None:
        """The answer's last token goes to the caller."""
        self.post(seen.LastTokenDelivered(self.now(), stream, tokens))

    def finished(self, stream: StreamId, tokens: int) -> None:
        """The answer is whole."""
        self.post(seen.AttemptFinished(self.now(), stream, tokens))

    def broken(self, stream: StreamId, failure: FailureDetail) -> None:
        """The node broke the contract in this attempt."""
        self.post(seen.AttemptBroken(self.now(), stream, failure))

    # --- effects -----------------------------------------------------------------------------------

    def _carry_out_guarded(self, effect: Effect) -> None:
        """Carry out one effect; a surprise in it must not cost the others, whose requests the state has let go."""
        try:
            self._carry_out(effect)
        except Exception:
            log.exception("an effect failed", effect=type(effect).__name__)
            if isinstance(effect, do.StartAttempt):
                ours = FailureDetail(Fault.COORDINATOR, "the coordinator failed to start the attempt", code="internal")
                self.post(seen.AttemptBroken(self.now(), effect.stream, ours))

    def _carry_out(self, effect: Effect) -> None:
        links = self._links
        assert links is not None, "connect() comes before the first event"
        match effect:
            case do.StartAttempt():
                self._start(links, effect)
            case do.CancelAttempt(stream, link, reason):
                links.cancel(link, stream, reason)
            case do.ReleaseStream(stream, link):
                links.release(link, stream)
            case do.RefuseRequest(request_id):
                if request := self._requests.get(request_id):
                    request.refused(effect)
            case do.FailRequest(request_id, failure):
                log.info("request failed", request=request_id.hex(), why=failure.message, attempts=effect.attempts)
                if request := self._requests.get(request_id):
                    request.failed(effect)
            case do.CompleteRequest(request_id):
                if request := self._requests.get(request_id):
                    request.completed()
            case do.WelcomeNode():
                links.welcome(effect)
            case do.CloseLink():
                links.close(effect)
            case do.AssignModels(node_id, _, _, revision, models):
                log.info("models assigned", node=node_id, revision=revision, models=list(models))
                links.assign(effect)
            case _:
                assert_never(effect)

    def _start(self, links: LinkPort, effect: do.StartAttempt) -> None:
        request = self._requests.get(effect.request_id)
        if request is None:
            # The caller left between the failure of one attempt and the start of the next.
            self.post(seen.CallerLeft(self.now(), effect.request_id))
            return
        self._metrics.attempted(effect.attempt, effect.resume, rival=effect.rival)
        frames = request.begin(effect)
        sink = request.sink(effect.stream)
        if not links.start(effect.link, effect.stream, frames, sink):
            gone = FailureDetail(Fault.NODE, "the node's link was gone", code="node_lost")
            self.post(seen.AttemptFailed(self.now(), effect.stream, gone))
        elif effect.hedge_after is not None:
            self.later(effect.hedge_after, partial(self._hedge, effect.stream))

    def _hedge(self, stream: StreamId) -> None:
        self.post(seen.HedgeDue(self.now(), stream))

    @staticmethod
    def later(seconds: float, work: Callable[[], None]) -> None:
        """Do it after so many seconds."""
        asyncio.get_running_loop().call_later(seconds, work)
