"""Lines: in order, late, held back, lost; and what their two ends hear of it."""

from __future__ import annotations

from random import Random

import pytest

from simulation.clock import Clock
from simulation.trace import Trace
from simulation.wire import Connection, Line, Way, set_ways
from simulation.world import World


class Listening:
    """An end that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    def take(self, message: bytes) -> None:
        self.heard.append(message)

    def ended(self, reason: str) -> None:
        self.heard.append(reason)


class Place:
    """A line with one connection."""

    def __init__(self) -> None:
        clock = Clock()
        self.clock = clock
        self.line = Line(0.01, 0.05, 1e6)
        self.node, self.coordinator = Listening(), Listening()
        self.connection = Connection(World(clock, Random(3), Trace(clock)), self.line, self.node)
        self.connection.accepted(self.coordinator)

    def pass_seconds(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)

    def up(self, *numbers: int) -> None:
        for number in numbers:
            self.connection.send_up(b"%d" % number)


@pytest.fixture
def place() -> Place:
    return Place()


def test_messages_arrive_in_the_order_in_which_they_were_sent_whatever_the_jitter(place: Place) -> None:
    place.up(*range(50))
    place.pass_seconds(1)
    assert place.coordinator.heard == [b"%d" % number for number in range(50)]


def test_what_a_line_held_back_arrives_in_order_once_it_is_open(place: Place) -> None:
    set_ways(place.line, Way.HELD, Way.OPEN)
    place.up(1, 2)
    place.pass_seconds(5)
    assert not place.coordinator.heard
    place.up(3)
    set_ways(place.line, Way.OPEN, Way.OPEN)
    place.pass_seconds(1)
    assert place.coordinator.heard == [b"1", b"2", b"3"]


def test_after_bytes_were_lost_nothing_arrives_any_more_and_both_ends_hear_it_when_the_line_is_back(
    place: Place,
) -> None:
    place.up(1)
    place.pass_seconds(1)
    set_ways(place.line, Way.LOST, Way.OPEN)
    place.up(2)
    place.pass_seconds(1)
    set_ways(place.line, Way.OPEN, Way.OPEN)
    place.up(3)
    place.pass_seconds(2)
    assert place.coordinator.heard == [b"1", "reset after a partition"]
    assert place.node.heard == ["reset after a partition"]
    assert not place.line.connections


def test_a_line_that_lost_nothing_was_never_gone(place: Place) -> None:
    set_ways(place.line, Way.LOST, Way.LOST)
    place.pass_seconds(5)
    set_ways(place.line, Way.OPEN, Way.OPEN)
    place.up(1)
    place.pass_seconds(40)
    assert place.coordinator.heard == [b"1"]


def test_a_line_that_stays_gone_is_noticed_at_both_ends_by_their_keepalive(place: Place) -> None:
    set_ways(place.line, Way.LOST, Way.LOST)
    place.pass_seconds(31)
    assert place.node.heard == place.coordinator.heard == ["keepalive timed out"]


def test_what_was_sent_before_a_close_arrives_before_its_end(place: Place) -> None:
    place.up(1, 2)
    place.connection.close_node()
    place.pass_seconds(1)
    assert place.coordinator.heard == [b"1", b"2", "the node closed it"]
    assert not place.node.heard


def test_a_reset_is_heard_at_both_ends_once(place: Place) -> None:
    place.up(1)
    place.connection.reset("reset")
    place.pass_seconds(1)
    assert place.node.heard == ["reset"]
    assert place.coordinator.heard.count("reset") == 1
