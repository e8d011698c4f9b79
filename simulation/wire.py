"""Connections between nodes and the coordinator: bytes in order, late, lost, or held back and delivered after all.

A connection that has lost bytes is dead and does not know it yet: its ends notice by their keepalive, or by a reset
once the line is back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Protocol

from shrk_contract.terms import KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS
from simulation.world import World

#: Either end pings this often, and gives up after so much more.
_PING, _PONG = KEEPALIVE_INTERVAL_MS / 1000, KEEPALIVE_TIMEOUT_MS / 1000
#: After a partition, the first packet on a forgotten connection is answered with a reset.
RESET_SECONDS_MAX = 1.0


class Way(Enum):
    """How one direction of a line is."""

    OPEN = "open"
    #: Nothing arrives until it is open again; then all of it does.
    HELD = "held"
    #: What is sent is lost.
    LOST = "lost"


class End(Protocol):
    """One side of a connection."""

    def take(self, message: bytes) -> None:
        """A message came."""
        ...

    def ended(self, reason: str) -> None:
        """There will be no other."""
        ...


@dataclass(slots=True)
class Line:
    """A node's way to the coordinator and back."""

    delay: float
    jitter: float
    bytes_per_second: float
    up: Way = Way.OPEN
    down: Way = Way.OPEN
    connections: list[Connection] = field(default_factory=list)

    @property
    def lost(self) -> bool:
        """Whether something that is sent now, or its acknowledgement, would be lost."""
        return Way.LOST in (self.up, self.down)


class _Flow:
    """One direction of one connection."""

    __slots__ = ("_arrives", "_connection", "_deliver", "_torn", "_up", "_waiting")

    def __init__(self, connection: Connection, up: bool, deliver: Callable[[bytes | None], None]) -> None:
        self._connection = connection
        self._up = up
        self._deliver = deliver
        #: When the last message arrives: none overtakes another.
        self._arrives = 0.0
        self._waiting: list[bytes | None] = []
        #: Something is missing: what comes behind it is of no use to anybody.
        self._torn = False

    @property
    def _way(self) -> Way:
        line = self._connection.line
        return line.up if self._up else line.down

    def send(self, message: bytes | None) -> None:
        """None: the end of it."""
        world, line = self._connection.world, self._connection.line
        on_its_way = line.delay + line.jitter * world.rng.random()
        size = len(message) if message else 0
        self._arrives = max(self._arrives, world.clock.now + on_its_way) + size / line.bytes_per_second
        world.clock.at(self._arrives, partial(self._arrived, message))

    def _arrived(self, message: bytes | None) -> None:
        way = self._way
        if way is Way.LOST or self._torn:
            self._torn = True
            self._connection.lost_something()
        elif way is Way.HELD or self._waiting:
            self._waiting.append(message)
        else:
            self._deliver(message)

    def let_go(self) -> None:
        """The line is open again: what waited arrives, in order."""
        while self._waiting and self._way is Way.OPEN:
            self._deliver(self._waiting.pop(0))


class Connection:
    """One connection, from a node's dialling to the moment at which both ends know that it is over."""

    def __init__(self, world: World, line: Line, node: End) -> None:
        self.world = world
        self.line = line
        self._node: End | None = node
        self._coordinator: End | None = None
        #: It has lost bytes, and will be reset when the line is back.
        self.doomed = False
        self._up = _Flow(self, True, self._at_coordinator)
        self._down = _Flow(self, False, self._at_node)
        line.connections.append(self)
        if line.lost:
            self.watch()

    def accepted(self, coordinator: End) -> None:
        """Who listens at the other end; once."""
        self._coordinator = coordinator

    # --- sending ------------------------------------------------------------------------------------

    def send_up(self, message: bytes) -> None:
        """From the node."""
        if self._node is not None:
            self._up.send(message)

    def send_down(self, message: bytes) -> None:
        """From the coordinator."""
        if self._coordinator is not None:
            self._down.send(message)

    def close_node(self) -> None:
        """The node is done with it: what it has sent arrives, then the end."""
        if self._node is not None:
            self._up.send(None)
            self._node = None
            self._forget()

    def close_coordinator(self) -> None:
        """The coordinator is done with it."""
        if self._coordinator is not None:
            self._down.send(None)
            self._coordinator = None
            self._forget()

    # --- arriving -----------------------------------------------------------------------------------

    def _at_coordinator(self, message: bytes | None) -> None:
        if self._coordinator is None:
            return
        if message is None:
            self._end_coordinator("the node closed it")
        else:
            self._coordinator.take(message)

    def _at_node(self, message: bytes | None) -> None:
        if self._node is None:
            return
        if message is None:
            self._end_node("the coordinator closed it")
        else:
            self._node.take(message)

    # --- faults -------------------------------------------------------------------------------------

    def reset(self, reason: str) -> None:
        """Both ends hear that it is over, at once or a moment later; what is under way is lost."""
        rng, clock = self.world.rng, self.world.clock
        clock.after(rng.random() * self.line.delay, partial(self._end_node, reason))
        clock.after(rng.random() * self.line.delay, partial(self._end_coordinator, reason))

    def lost_something(self) -> None:
        """Bytes are gone that its transport will not send again."""
        self.doomed = True

    def watch(self) -> None:
        """The line has begun to lose what is sent: each end's keepalive notices in time."""
        rng, clock = self.world.rng, self.world.clock
        clock.after(_PONG + _PING * rng.random(), partial(self._unheard, self._end_node))
        clock.after(_PONG + _PING * rng.random(), partial(self._unheard, self._end_coordinator))

    def _unheard(self, end: Callable[[str], None]) -> None:
        if self.line.lost:
            self.doomed = True
            end("keepalive timed out")

    def line_changed(self) -> None:
        """The line is open again, at least one way."""
        self._up.let_go()
        self._down.let_go()
        if self.doomed and not self.line.lost:
            clock = self.world.clock
            clock.after(self.world.rng.random() * RESET_SECONDS_MAX, partial(self.reset, "reset after a partition"))

    def _end_node(self, reason: str) -> None:
        node, self._node = self._node, None
        if node is not None:
            self._forget()
            node.ended(reason)
            self._up.send(None)

    def _end_coordinator(self, reason: str) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            self._forget()
            coordinator.ended(reason)
            self._down.send(None)

    def _forget(self) -> None:
        if self._node is None and self._coordinator is None and self in self.line.connections:
            self.line.connections.remove(self)


def set_ways(line: Line, up: Way, down: Way) -> None:
    """Change how a line is; its connections hear of it."""
    was_lost = line.lost
    line.up, line.down = up, down
    for connection in list(line.connections):
        if line.lost and not was_lost:
            connection.watch()
        connection.line_changed()
