"""The owner's hours: what may be written, what is open when, and for how long, also where clocks are set anew."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from shrk_node_agent.state.terms.hours import Opening, Schedule, ScheduleInvalid
from simulation.terms.hours import Case, check

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0
#: One thousand in a moment; ten thousand are `python -m simulation.terms hours --seeds 100`.
SEED, CASES = 20_261_130, 400


def at(text: str, *moment: int, zone: ZoneInfo = BERLIN) -> Opening:
    return Schedule.parse(text).at(datetime(*moment, tzinfo=UTC), zone)  # type: ignore[arg-type,misc]  # ints all along


def test_without_a_schedule_it_is_always_open() -> None:
    assert at("", 2026, 7, 1) == at("  ", 2026, 7, 1) == Opening(True)


def test_a_whole_day_every_day_never_closes() -> None:
    for text in ("00:00-24:00", "daily 00:00-24:00", "00:00-12:00, 12:00-24:00", "mon-sun 20:00-08:00; 8:00-20:00"):
        assert at(text, 2026, 7, 1, 9) == Opening(True), text


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    text = "fri 22:00-08:00"
    assert at(text, 2026, 7, 3, 21) == Opening(True, closes_in=9 * HOUR)  # Friday, 23:00 in Berlin
    assert at(text, 2026, 7, 4, 5, 59) == Opening(True, closes_in=60.0)
    assert at(text, 2026, 7, 4, 6) == Opening(False, opens_in=(6 * 24 + 14) * HOUR)
    assert at(text, 2026, 7, 3, 5) == Opening(False, opens_in=15 * HOUR)  # Friday morning is Thursday's


def test_days_are_lists_and_ranges_also_over_the_end_of_the_week() -> None:
    week = {day: Schedule.parse(f"{day} 00:00-24:00").windows[0].days for day in ("fri-mon", "sat,sun", "monday")}
    assert week == {"fri-mon": {4, 5, 6, 0}, "sat,sun": {5, 6}, "monday": {0}}
    both = Schedule.parse("mon-fri 22:00-08:00, sat,sun 00:00-24:00")
    assert [w.days for w in both.windows] == [{0, 1, 2, 3, 4}, {5, 6}]
    assert both.windows == Schedule.parse("mon-fri, 22:00 - 08:00, sat, sun 00:00-24:00").windows
    assert both.windows == Schedule.parse("Mon-Fri 22:00-08:00; sat-sun 00:00-24:00").windows


def test_in_the_night_that_loses_an_hour_what_is_left_of_a_window_is_open() -> None:
    # On 2026-03-29 clocks in Berlin go from 02:00 to 03:00, at 01:00 UTC.
    assert at("02:30-03:30", 2026, 3, 29, 0, 59) == Opening(False, opens_in=60.0)
    assert at("02:30-03:30", 2026, 3, 29, 1, 0) == Opening(True, closes_in=HOUR / 2)
    assert at("01:00-04:00", 2026, 3, 29, 0, 0) == Opening(True, closes_in=2 * HOUR)
    # All of it is skipped: a week later.
    assert at("sun 02:00-03:00", 2026, 3, 28, 23) == Opening(False, opens_in=(7 * 24 + 1) * HOUR)


def test_of_an_hour_that_comes_twice_both_count() -> None:
    # On 2026-10-25 clocks in Berlin go from 03:00 back to 02:00, at 01:00 UTC.
    assert at("02:30-03:30", 2026, 10, 25, 0, 0) == Opening(False, opens_in=HOUR / 2)
    assert at("02:30-03:30", 2026, 10, 25, 0, 30) == Opening(True, closes_in=HOUR / 2)
    assert at("02:30-03:30", 2026, 10, 25, 1, 0) == Opening(False, opens_in=HOUR / 2)
    assert at("02:30-03:30", 2026, 10, 25, 1, 30) == Opening(True, closes_in=HOUR)
    assert at("22:00-08:00", 2026, 10, 24, 20) == Opening(True, closes_in=11 * HOUR)


@pytest.mark.parametrize(
    ("text", "what", "nearest"),
    [
        ("22-8", "not HH:MM-HH:MM", "'22:00-08:00'"),
        ("10pm to 8am", "not HH:MM-HH:MM", "'22:00-08:00'"),
        ("22:00", "not HH:MM-HH:MM", "'22:00-08:00'"),
        ("mon-fri 25:00-08:00", "hours are 00:00 to 24:00", "'mon-fri 00:00-08:00'"),
        ("22:60-08:00", "hours are 00:00 to 24:00", "'22:59-08:00'"),
        ("24:00-08:00", "24:00 can only be an end", "'00:00-08:00'"),
        ("08:00-08:00", "a whole day is 00:00-24:00", "'00:00-24:00'"),
        ("mo-fri 22:00-08:00", "'mo-fri' is no day", "'mon-fri 22:00-08:00'"),
        ("weekdays 22:00-08:00", "'weekdays' is no day", "'mon-fri 22:00-08:00'"),
        ("sat,sun", "days and no hours", "'sat,sun 00:00-24:00'"),
        ("sat; 22:00-08:00", "days and no hours", "'sat 00:00-24:00'"),
        ("22:00-08:00 mon", "not HH:MM-HH:MM", "'22:00-08:00'"),
        ("-,mon 8-9", "not HH:MM-HH:MM", "'mon 08:00-09:00'"),
        ("daily-fri 22:00-08:00", "is no day", "'daily 22:00-08:00'"),
        ("always", "days and no hours", "00:00-24:00'"),
        ("22:00-08:00,,", "nothing stands before", "take that out"),
        (",".join(["22:00-08:00"] * 22), "more than 21", "join some"),
        ("x" * 1_001, "more than 1000", "join days"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_nearest_right_one(text: str, what: str, nearest: str) -> None:
    with pytest.raises(ScheduleInvalid) as refused:
        Schedule.parse(text)
    assert what in str(refused.value)
    assert nearest in str(refused.value)
    if "HH:MM" in str(refused.value):
        Schedule.parse(str(refused.value).rpartition("the nearest is ")[2].strip("'"))


def test_whatever_is_written_is_a_schedule_or_refused_with_one() -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    words = ["mon", "fri", "xyz", "daily", "-", "–", ",", ";", " ", "22", ":", "00", "8", "24", "61", "pm", "to"]
    for _ in range(3_000):
        text = "".join(dice.choices(words, k=dice.randrange(1, 12)))
        try:
            Schedule.parse(text)
        except ScheduleInvalid as refused:
            nearest = str(refused).rpartition("the nearest is ")[2]
            assert "take that out" in nearest or Schedule.parse(nearest.strip("'")).windows, text


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
def test_what_is_told_to_the_second_holds_to_the_second(zone: str) -> None:
    told = Schedule.parse("22:00-08:00").at(datetime(2026, 7, 1, 12, 0, 1, 500_000, tzinfo=UTC), ZoneInfo(zone))
    assert (told.closes_in or told.opens_in or 0.0) % 60 == 58.5


def test_random_schedules_agree_with_one_who_looks_at_every_minute() -> None:
    print(f"seed {SEED}")
    mismatches = [told for number in range(CASES) if (told := check(Case.drawn(SEED + number)))]
    assert not mismatches, "\n".join(mismatches)
