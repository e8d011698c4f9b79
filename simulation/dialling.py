"""A node's side of its link: dials, says hello, reports, beats, and dials again as the product's dialler does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from shrk_contract.terms import HEARTBEAT_SECONDS, PROTOCOL, REPORT_INTERVAL_SECONDS, Rejection
from shrk_contract.v1 import link_pb2
from shrk_contract.v1.refusal_pb2 import REFUSAL_CODE_NODE_SILENT, ProtocolVersion, Refusal
from shrk_node_agent.attempts import AttemptSink, Credit, CreditWithheld
from shrk_node_agent.link.session import Session, SessionPort, SessionSink
from shrk_node_agent.state.backoff import DIAL, dial_failures
from simulation.babble import Babble
from simulation.fibers import Until, Wake
from simulation.outbox import InstantOutbox
from simulation.wire import Connection, Line

if TYPE_CHECKING:
    from simulation.agent import Agent

#: The product's own, of the module that speaks gRPC.
WELCOME_SECONDS_MAX = 20.0
PERMANENT_REFUSAL_SECONDS = 60.0
REFUSAL_SECONDS_MIN = 1.0


class Listener(Protocol):
    """Where nodes dial."""

    def accept(self, node_id: str, connection: Connection) -> None:
        """A node has opened a connection."""
        ...


class MeteredCredit(Credit):
    """The product's credit, waited for in virtual time."""

    def __init__(self, given: Credit) -> None:
        super().__init__(given._left)
        self._more = Wake()

    async def spend(self, size: int) -> None:
        """As in the product. Raises CreditWithheld."""
        while self._left < size:
            self._more.clear()
            if not await Until(self._more, self._seconds_max):
                raise CreditWithheld(f"no credit within {self._seconds_max:g} s")
        self._left -= size


class Dialling:
    """Keeps one link open."""

    def __init__(self, agent: Agent, line: Line, listener: Listener, incarnation: int) -> None:
        self.session: Session | None = None
        #: What a broken agent does to its own frames, while it is broken.
        self.babble: Babble | None = None
        self._agent = agent
        self._line = line
        self._listener = listener
        self._incarnation = incarnation
        self._connection: Connection | None = None
        self._failures = 0
        self._welcomed_at: float | None = None
        self._sent_at = 0.0
        self._interval = REPORT_INTERVAL_SECONDS
        self._reports = 0
        self._report_due = False

    # --- its life -----------------------------------------------------------------------------------

    def dial(self) -> None:
        """Open a link."""
        self._welcomed_at = None
        end = _NodeEnd(self, self._agent)
        connection = self._connection = end.connection = Connection(self._agent.world, self._line, end)
        self._listener.accept(self._agent.node_id, connection)
        major, minor = PROTOCOL
        version = ProtocolVersion(major=major, minor=minor)
        hello = link_pb2.Hello(protocol=version, incarnation=self._incarnation, agent_version="0")
        self._write(connection, [link_pb2.NodeFrame(hello=hello)])
        self._agent.later(WELCOME_SECONDS_MAX, partial(self._give_up, connection))

    def _give_up(self, connection: Connection) -> None:
        if self._connection is connection and self._welcomed_at is None:
            self._over(None)

    def cut(self, quietly: bool) -> None:
        """The process is gone."""
        if self._connection is not None and not quietly:
            self._connection.close_node()
        self._connection = None

    def take(self, connection: Connection, message: bytes) -> None:
        """A batch came."""
        if self._connection is not connection:
            return
        batch = link_pb2.CoordinatorBatch.FromString(message)
        if self.babble is not None:
            self.babble.forget_some(batch)
        for frame in batch.frames:
            if frame.WhichOneof("frame") == "refusal":
                self._refused(frame.refusal)
                return
        if self.session is None:
            self._welcomed(connection, batch)
        else:
            self.session.take(batch)

    def ended(self, connection: Connection) -> None:
        """The connection is over, without a word."""
        if self._connection is connection:
            self._over(None)

    def _welcomed(self, connection: Connection, first: link_pb2.CoordinatorBatch) -> None:
        welcome = first.frames[0]
        assert welcome.WhichOneof("frame") == "welcome", "a link begins with a welcome"
        agent = self._agent
        port = SessionPort(agent.ordered, _refuse_unknown, agent.cancelled, agent.assigned)
        session = self.session = Session(port, _nobody)
        session.outbox = InstantOutbox(agent.later, partial(self._leave, connection))
        self._welcomed_at = agent.now
        self._interval = welcome.welcome.report_interval_ms / 1000 or REPORT_INTERVAL_SECONDS
        agent.link_changed()
        session.take(link_pb2.CoordinatorBatch(frames=first.frames[1:]))
        self._report(session)
        self._beat(session)

    def _refused(self, refusal: Refusal) -> None:
        dice = self._agent.world.rng
        self._agent.world.trace.add(self._agent.node_id, "was refused", refusal.message)
        if refusal.code == REFUSAL_CODE_NODE_SILENT:
            self._over(None)
        elif refusal.permanent:
            self._over(PERMANENT_REFUSAL_SECONDS * (0.5 + dice.random()))
        else:
            self._over(max(REFUSAL_SECONDS_MIN, refusal.retry_after_ms / 1000) * (1.0 + dice.random()))

    def _over(self, wait: float | None) -> None:
        """The link is over: let go of its attempts, and dial again."""
        agent, session, connection = self._agent, self.session, self._connection
        self.session = self._connection = None
        if connection is not None:
            connection.close_node()
        if session is not None:
            agent.lost(session)
        agent.link_changed()
        lived = 0.0 if self._welcomed_at is None else agent.now - self._welcomed_at
        self._failures = dial_failures(self._failures, lived)
        delay = DIAL.delay(self._failures, agent.world.rng.random()) if wait is None else wait
        agent.later(delay, self.dial)

    # --- what is said -------------------------------------------------------------------------------

    def _leave(self, connection: Connection, frames: list[link_pb2.NodeFrame]) -> None:
        if self.babble is not None:
            frames = self.babble.garble(frames)
        self._write(connection, frames)

    def _write(self, connection: Connection, frames: list[link_pb2.NodeFrame]) -> None:
        self._sent_at = self._agent.now
        for frame in frames:
            if frame.WhichOneof("frame") == "finish":
                # Told by the wall's clock, and read by nobody.
                frame.finish.ClearField("first_token_ms")
                frame.finish.ClearField("total_ms")
        connection.send_up(link_pb2.NodeBatch(frames=frames).SerializeToString())

    def report_soon(self) -> None:
        """In this moment's batch, instead of at the next interval."""
        if self.session is not None and not self._report_due:
            self._report_due = True
            self._agent.later(0.0, partial(self._report_now, self.session))

    def _report_now(self, session: Session) -> None:
        if self._report_due:
            self._report(session)

    def _report(self, session: Session) -> None:
        self._report_due = False
        if self.session is not session:
            return
        self._reports += 1
        session.report(self._agent.report())
        self._agent.later(self._interval, partial(self._report_again, session, self._reports))

    def _report_again(self, session: Session, reports: int) -> None:
        if reports == self._reports:
            self._report(session)

    def _beat(self, session: Session) -> None:
        if self.session is not session:
            return
        left = HEARTBEAT_SECONDS - (self._agent.now - self._sent_at)
        # Virtual time does not pass by itself: a rest too small to add would be waited for over and over.
        if left <= 1e-6:
            if session.open_attempts():
                session.outbox.beat()
            left = HEARTBEAT_SECONDS
        self._agent.later(left, partial(self._beat, session))

    def meter(self, sink: SessionSink) -> None:
        """Let an attempt's credit be waited for in virtual time. Before its first piece."""
        sink.credit = MeteredCredit(sink.credit)


class _NodeEnd:
    """The node's end of one connection."""

    def __init__(self, dialling: Dialling, agent: Agent) -> None:
        self._dialling = dialling
        self._agent = agent
        self.connection: Connection | None = None

    def take(self, message: bytes) -> None:
        assert self.connection is not None, "nothing comes before there is a connection"
        self._agent.run(partial(self._dialling.take, self.connection, message))

    def ended(self, reason: str) -> None:
        assert self.connection is not None, "nothing ends before there is a connection"
        self._agent.run(partial(self._dialling.ended, self.connection))


def _refuse_unknown(sink: AttemptSink) -> None:
    sink.reject(Rejection.UNSUPPORTED, "this agent does not know the endpoint")


async def _nobody(frames: list[link_pb2.NodeFrame]) -> None:
    raise AssertionError("the outbox is another")
