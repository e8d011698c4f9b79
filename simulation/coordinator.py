"""The coordinator: its own driver, state, links and relays; its link server and event loop are played."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shrk_contract.terms import ResumeMethod
from shrk_contract.v1 import link_pb2
from shrk_contract.v1.refusal_pb2 import REFUSAL_CODE_CONTRACT_BROKEN, Refusal
from shrk_coordinator.control_plane.links import ContractBroken, Link, Links
from shrk_coordinator.data_plane.end_of_tick import EndOfTick
from shrk_coordinator.data_plane.held import HELD_BYTES_MAX, HeldBytes
from shrk_coordinator.data_plane.relay import Shared
from shrk_coordinator.driver import LAG_SECONDS_MAX, TICK_SECONDS, Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event
from simulation.clock import Action
from simulation.outbox import InstantOutbox, Later
from simulation.wire import Connection
from simulation.world import World

#: Takes in one event's effects before they are carried out: what must hold is looked at here.
Watch = Callable[[Event, "list[Effect]"], None]


class Counts(Metrics):
    """The product's metrics without Prometheus, which would take longer than a whole run."""

    def __init__(self) -> None:
        self.attempts = 0
        self.hedges = 0
        self.continuations = 0
        self.by_ids = 0

    def attempted(self, number: int, resume: ResumeMethod | None, *, rival: bool = False) -> None:
        """An attempt begins."""
        self.attempts += 1
        self.hedges += rival

    def continued(self, method: ResumeMethod, reason: str, gap: float) -> None:
        """A continued answer goes on."""
        self.continuations += 1
        self.by_ids += method is ResumeMethod.BY_IDS


class PlayedDriver(Driver):
    """The product's driver in virtual time. A surprise in an effect ends the run instead of being logged."""

    def __init__(self, world: World, state: CoordinatorState, counts: Counts, later: Later) -> None:
        super().__init__(counts)
        self.state = state
        self.watch: Watch | None = None
        self._world = world
        self._later = later

    def now(self) -> float:  # type: ignore[override]  # the product's is static, since its clock is the machine's
        """Virtual seconds."""
        return self._world.clock.now

    def later(self, seconds: float, work: Action) -> None:  # type: ignore[override]  # as above
        """Do it after so many virtual seconds."""
        self._later(seconds, work)

    def tick(self, late_seconds: float) -> None:
        """One turn of the product's `run`."""
        self.lag_seconds = late_seconds
        self.post(seen.Tick(self.now()))
        if late_seconds < LAG_SECONDS_MAX:
            self._look_for_stalls()

    def _take(self, event: Event) -> None:
        effects = list(self.state.handle(event))
        if effects or not isinstance(event, (seen.Tick, seen.NodeHeard)):
            self._world.trace.add("coordinator", "saw", event)
        for effect in effects:
            self._world.trace.add("coordinator", "  does", effect)
        if self.watch is not None:
            self.watch(event, effects)
        for effect in effects:
            self._carry_out(effect)


class _EndOfMoment(EndOfTick):
    """The end of a moment in virtual time."""

    def __init__(self, later: Callable[[float, Action], None]) -> None:
        super().__init__()
        self._later = later

    def add(self, work: Callable[[], None]) -> None:
        """Do `work` behind everything that is due now."""
        if not self._due:
            self._later(0.0, self._run)
        self._due.append(work)


class Coordinator:
    """One coordinator process. It never ends; it may be late."""

    def __init__(self, world: World, state: CoordinatorState, links: Links) -> None:
        self.world = world
        self.links = links
        self.counts = Counts()
        self.driver = PlayedDriver(world, state, self.counts, self.later)
        self.driver.connect(links)
        self.held = HeldBytes(HELD_BYTES_MAX)
        self.shared = Shared(links, self.driver, end_of_tick=_EndOfMoment(self.later), held=self.held)
        #: What is due while its event loop is held up.
        self._held_up: list[Action] | None = None
        self._ticked_at = world.clock.now
        #: Told after each tick.
        self.ticked: Callable[[], None] = lambda: None

    def start(self) -> None:
        """It runs."""
        self.later(TICK_SECONDS, self._tick)

    def run(self, action: Action) -> None:
        """Do it now, or when the loop turns again."""
        if self._held_up is None:
            action()
        else:
            self._held_up.append(action)

    def later(self, seconds: float, action: Action) -> None:
        """Do it so much later."""
        self.world.clock.after(seconds, partial(self.run, action))

    def hold_up(self, seconds: float) -> None:
        """Its event loop does not turn for so long."""
        if self._held_up is None:
            self._held_up = []
            self.world.clock.after(seconds, self._go_on)

    def _go_on(self) -> None:
        due, self._held_up = self._held_up or [], None
        # Timers and sockets are looked at in one turn: which of them comes first is chance.
        ticks = [action for action in due if action == self._tick]
        others = [action for action in due if action != self._tick]
        for action in ticks + others if self.world.rng.random() < 0.5 else others + ticks:
            self.run(action)

    def _tick(self) -> None:
        now = self.world.clock.now
        self.driver.tick(max(0.0, now - self._ticked_at - TICK_SECONDS))
        self._ticked_at = now
        self.ticked()
        self.later(TICK_SECONDS, self._tick)

    # --- links --------------------------------------------------------------------------------------

    def accept(self, node_id: str, connection: Connection) -> None:
        """A node has opened a connection."""
        connection.accepted(_Served(self, node_id, connection))


class _Served:
    """One link from its hello to its end, as the product's link server sees it through."""

    def __init__(self, coordinator: Coordinator, node_id: str, connection: Connection) -> None:
        self._coordinator = coordinator
        self._node_id = node_id
        self._connection = connection
        self._link: Link | None = None
        self._over = False

    def take(self, message: bytes) -> None:
        """A batch came."""
        self._coordinator.run(partial(self._take, message))

    def ended(self, reason: str) -> None:
        """The connection is over."""
        self._coordinator.run(partial(self._end, reason))

    def _take(self, message: bytes) -> None:
        if self._over:
            return
        batch = link_pb2.NodeBatch.FromString(message)
        link = self._link or self._hello(batch)
        if link.refusal is not None:
            return
        try:
            link.take(batch)
        except ContractBroken as error:
            what = f"The agent broke the contract: {error}."
            link.refuse(Refusal(code=REFUSAL_CODE_CONTRACT_BROKEN, message=what, retry_after_ms=5000))

    def _hello(self, batch: link_pb2.NodeBatch) -> Link:
        hello = link_pb2.Hello.FromString(batch.frames[0].hello.SerializeToString())
        del batch.frames[0]
        links, driver = self._coordinator.links, self._coordinator.driver
        link = Link(links.new_id(), self._node_id, "", (), driver.post, driver.now, _nobody, self._close_soon)
        link.outbox = InstantOutbox(self._coordinator.later, self._write)
        self._link = link
        links.add(link)
        driver.post(seen.NodeHello(driver.now(), self._node_id, link.id, hello.incarnation, "owner"))
        return link

    def _write(self, frames: list[link_pb2.CoordinatorFrame]) -> None:
        self._connection.send_down(link_pb2.CoordinatorBatch(frames=frames).SerializeToString())

    def _close_soon(self, link: Link) -> None:
        assert link.refusal is not None, "a link is closed with a word"
        self._coordinator.later(0.0, partial(self._end, link.refusal.message))

    def _end(self, reason: str) -> None:
        link = self._link
        if self._over:
            return
        self._over = True
        if link is not None:
            self._coordinator.links.remove(link)
            driver = self._coordinator.driver
            driver.post(seen.LinkClosed(driver.now(), self._node_id, link.id, reason))
            if link.refusal is not None:
                link.outbox.send(link_pb2.CoordinatorFrame(refusal=link.refusal))
            assert isinstance(link.outbox, InstantOutbox)
            link.outbox.flush()
        self._connection.close_coordinator()


async def _nobody(frames: list[link_pb2.CoordinatorFrame]) -> None:
    raise AssertionError("the outbox is another")
