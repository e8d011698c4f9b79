"""Lengths of time as owners type them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shrk_node_agent.commands.durations import seconds_of
from shrk_node_agent.commands.ending import Exit, WrongUsage


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clocks are put forward and back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("typed", "seconds"), [("2h", 7200), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("90s", 90), ("1D", 86_400)]
)
def test_a_length_of_time_is_read(typed: str, seconds: float) -> None:
    assert seconds_of(typed.split(), 0.0) == seconds


@pytest.mark.parametrize(
    "typed", ["2", "h", "2 hours", "-2h", "2h30", "30m1h", "1.5h", "", "until", "until 8", "until 24:00"]
)
def test_what_is_no_length_of_time_is_refused_with_what_is(typed: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        seconds_of(typed.split(), 0.0)
    assert "until 08:00" in str(refused.value)
    assert refused.value.exit_code == Exit.USAGE


def test_a_number_alone_is_asked_for_its_unit() -> None:
    with pytest.raises(WrongUsage, match="say the unit, too"):
        seconds_of(["2"], 0.0)


@pytest.mark.parametrize("typed", ["59s", "0h", "31d"])
def test_a_length_out_of_range_is_refused_with_the_range(typed: str) -> None:
    with pytest.raises(WrongUsage, match="not between 60 s and 30 d"):
        seconds_of([typed], 0.0)


@pytest.mark.parametrize(
    ("now", "clock", "hours"),
    [
        ("2026-11-30 22:00", "08:00", 10),
        ("2026-11-30 07:00", "08:00", 1),
        ("2026-11-30 08:00", "08:00", 24),
        # The night in which it is two o'clock twice, and the one in which it never is.
        ("2026-10-24 22:00", "08:00", 11),
        ("2026-03-28 22:00", "08:00", 9),
        ("2026-12-31 23:00", "00:00", 1),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_until_is_the_next_time_that_the_clock_on_the_wall_shows_it(now: str, clock: str, hours: int) -> None:
    unix = time.mktime(time.strptime(now, "%Y-%m-%d %H:%M"))
    assert seconds_of(["until", clock], unix) == hours * 3600
