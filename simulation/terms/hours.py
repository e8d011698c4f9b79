"""Random schedules, moments and zones, judged by one who looks at every minute; many where clocks are set anew."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from shrk_node_agent.state.terms.hours import DAYS, Schedule

#: By whole and half hours, at midnight, over the date line; the last one never.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
#: Hours around these moments (UTC) are drawn more often than others: clocks are set anew.
CHANGES = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 4, 5, 3, tzinfo=UTC),
    datetime(2026, 9, 6, 4, tzinfo=UTC),
    datetime(2026, 2, 15, 2, tzinfo=UTC),
    datetime(2026, 3, 28, 22, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
)
#: How far the oracle looks: as far as the schedule's own promise reaches.
MINUTES_MAX = 15 * 24 * 60
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Span:
    """A window as its text was made: days, minutes of the day, how long."""

    days: frozenset[int]
    start: int
    length: int

    @classmethod
    def drawn(cls, dice: random.Random) -> Span:
        """Some are short, some take a whole day, many lie in the hours in which clocks are set."""
        days = frozenset(dice.sample(range(7), dice.choice((1, 1, 2, 5, 7))))
        start = dice.choice((dice.randrange(0, 1440), dice.randrange(0, 240, 15), dice.randrange(0, 1440, 30)))
        length = dice.choice((dice.randrange(1, 90), dice.randrange(1, 1440), 1440 - start))
        return cls(days, start, length)

    def text(self, dice: random.Random) -> str:
        """As somebody writes it."""
        days = sorted(self.days)
        named = ",".join(DAYS[day] for day in days)
        if len(days) > 2 and days[-1] - days[0] == len(days) - 1 and dice.random() < 0.5:
            named = f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
        if len(days) == 7:
            named = dice.choice(("", "daily", named))
        end = self.start + self.length
        end = end if end <= 1440 else end - 1440
        times = f"{self.start // 60:02}:{self.start % 60:02}-{end // 60:02}:{end % 60:02}"
        return f"{named} {times}".strip()

    def intervals(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        """Of the wall clock, where it begins on this day."""
        if day.weekday() in self.days:
            begins = datetime.combine(day, time()) + timedelta(minutes=self.start)
            yield begins, begins + timedelta(minutes=self.length)


@dataclass(frozen=True, slots=True)
class Case:
    """One question, and what it was made of."""

    seed: int
    spans: tuple[Span, ...]
    text: str
    moment: datetime
    zone: ZoneInfo
    _memory: dict[datetime, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def drawn(cls, seed: int) -> Case:
        """The case of this seed."""
        dice = random.Random(f"hours {seed}")
        spans = tuple(Span.drawn(dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))
        text = dice.choice((", ", "; ")).join(span.text(dice) for span in spans)
        if dice.random() < 0.6:
            moment = dice.choice(CHANGES) + timedelta(minutes=dice.randrange(-36 * 60, 36 * 60))
        else:
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=dice.randrange(0, 3 * 365 * 1440))
        moment += timedelta(seconds=dice.choice((0, 0, dice.randrange(60))))
        return cls(seed, spans, text, moment, ZoneInfo(dice.choice(ZONES)))

    def open_at(self, moment: datetime) -> bool:
        """Whether the wall clock shows a time within one of the spans."""
        wall = moment.astimezone(self.zone).replace(tzinfo=None)
        if (known := self._memory.get(wall)) is not None:
            return known
        days = (wall.date(), wall.date() - timedelta(days=1))
        found = any(a <= wall < b for day in days for span in self.spans for a, b in span.intervals(day))
        self._memory[wall] = found
        return found

    def change_in(self) -> float | None:
        """Seconds until it is otherwise; every minute is looked at."""
        now = self.open_at(self.moment)
        minute = self.moment.replace(second=0, microsecond=0)
        for _ in range(MINUTES_MAX):
            minute += MINUTE
            if self.open_at(minute) is not now:
                return (minute - self.moment).total_seconds()
        return None


def check(case: Case) -> str:
    """What the schedule says otherwise than the oracle; empty: nothing."""
    told = Schedule.parse(case.text).at(case.moment, case.zone)
    is_open, change = case.open_at(case.moment), case.change_in()
    right = (is_open, change if is_open else None, None if is_open else change)
    if (told.open, told.closes_in, told.opens_in) == right:
        return ""
    return (
        f"seed {case.seed}: {case.text!r} at {case.moment} in {case.zone}: {told}, but (open, closes, opens) is {right}"
    )


class Mismatch(Exception):
    """The schedule said something else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question came to."""

    open: bool
    changes: bool
    digest: str = ""


def answered(seed: int) -> Answer:
    """One question, where schedule and oracle agree. Raises Mismatch."""
    case = Case.drawn(seed)
    if mismatch := check(case):
        raise Mismatch(mismatch)
    return Answer(case.open_at(case.moment), case.change_in() is not None)
