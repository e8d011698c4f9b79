"""Coroutines in virtual time: they wait for a wake or for time, and end or are cancelled."""

from __future__ import annotations

import pytest

from simulation.clock import Clock
from simulation.fibers import Fiber, Until, Wake


class Ran:
    """One fiber and what came of it."""

    def __init__(self, seconds: float | None, fails: type[Exception] | None = None) -> None:
        self.clock, self.wake = Clock(), Wake()
        self.began = self.clock.now
        self.answers: list[tuple[float, bool]] = []
        self.ends: list[Exception | None] = []
        self._seconds = seconds
        self._fails = fails
        self.fiber = Fiber(self.clock, self._wait(), self.ends.append, (KeyError,))
        self.fiber.run()

    async def _wait(self) -> None:
        answer = await Until(self.wake, self._seconds)
        self.answers.append((self.clock.now - self.began, answer))
        if self._fails is not None:
            raise self._fails

    def pass_seconds(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)


def test_a_wake_lets_it_go_on_once() -> None:
    ran = Ran(5.0)
    ran.pass_seconds(1)
    ran.wake.set()
    ran.wake.clear()
    ran.pass_seconds(10)
    assert (ran.answers, ran.ends) == ([(1.0, True)], [None])


def test_time_lets_it_go_on_where_nobody_wakes_it() -> None:
    ran = Ran(5.0)
    ran.pass_seconds(10)
    assert ran.answers == [(5.0, False)]


def test_a_wake_that_is_set_already_is_not_waited_for() -> None:
    ran = Ran(None)
    ran.wake.set()

    async def passes() -> None:
        assert await Until(ran.wake, 1.0)

    Fiber(ran.clock, passes(), ran.ends.append).run()
    assert ran.ends == [None]


def test_it_tells_of_an_end_that_was_expected_and_raises_any_other() -> None:
    expected = Ran(1.0, KeyError)
    expected.pass_seconds(2)
    assert [type(end) for end in expected.ends] == [KeyError]
    other = Ran(1.0, ValueError)
    with pytest.raises(ValueError):  # noqa: PT011  # raised without words by the coroutine above
        other.pass_seconds(2)


def test_one_that_was_cancelled_goes_no_further() -> None:
    ran = Ran(1.0)
    ran.fiber.cancel()
    ran.wake.set()
    ran.pass_seconds(5)
    assert (ran.answers, ran.ends, ran.fiber.over) == ([], [], True)
