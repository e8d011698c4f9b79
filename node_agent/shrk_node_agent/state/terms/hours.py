"""When the owner lends the machine: windows of local wall-clock time.

    open   --> closed   the wall clock leaves the last window that held it
    closed --> open     it enters one

A window is `HH:MM-HH:MM`, on every day or on the days named before it: `mon-fri 22:00-08:00`, `sat,sun 10:00-24:00`.
Several are separated by commas or semicolons; a comma after a day goes on with the days. The end does not belong to a
window, and one over midnight belongs to the day on which it begins. Whatever clocks do, an instant is judged by what
they show: of an hour that comes twice both count, of one that is skipped nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = frozenset(range(7))
_FULL = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_NUMBER = {name: number for names in (DAYS, _FULL) for number, name in enumerate(names)}
#: What people write for several days, and how it is written here.
_OTHER_DAYS = {"weekdays": "mon-fri", "weekday": "mon-fri", "weekends": "sat-sun", "weekend": "sat-sun"}
_MINUTES_A_DAY = 24 * 60

#: Three a day for a week: more is a mistake, and each is looked at whenever the hours are asked for.
WINDOWS_MAX = 21
#: Far more than so many windows need; what is longer is not quoted back.
TEXT_CHARACTERS_MAX = 1_000
#: A window that falls into the hour that clocks skip is open a week later, and so is a day that a country skipped.
LOOK_AHEAD_SECONDS = 15 * 24 * 3600
#: Zones that change their offset and take it back within so short a time are not known.
_STEP_SECONDS = 6 * 3600

FORM = "HH:MM-HH:MM with days before it where it is not every day, such as 22:00-08:00 or mon-fri 22:00-08:00"
_TIMES = re.compile(r"(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})")
_LOOSE = re.compile(
    r"(\d{1,2})(?:[:.h]?(\d{2}))?\s*h?\s*(am|pm)?\s*(?:-|–|to|till|until|bis)\s*(\d{1,2})(?:[:.h]?(\d{2}))?\s*h?\s*(am|pm)?"
)


class ScheduleInvalid(ValueError):
    """It is no schedule; says what is wrong, the form, and the nearest right one."""


@dataclass(frozen=True, slots=True)
class Window:
    """From a minute of its days to another; `end` <= `start` where that is on the day after."""

    days: frozenset[int]
    start: int
    end: int

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether it is open in this minute of this day."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        return (weekday in self.days and minute >= self.start) or ((weekday - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Opening:
    """How the hours stand. Seconds are real ones, to the first change; None where it never comes."""

    open: bool
    closes_in: float | None = None
    opens_in: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The owner's hours. Without a window: always."""

    windows: tuple[Window, ...] = ()
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Raises ScheduleInvalid."""
        if len(text) > TEXT_CHARACTERS_MAX:
            raise ScheduleInvalid(f"schedule: {len(text)} characters are more than {TEXT_CHARACTERS_MAX}; join days")
        windows = tuple(_windows(text)) if text.strip() else ()
        if len(windows) > WINDOWS_MAX:
            raise ScheduleInvalid(f"{len(windows)} windows are more than {WINDOWS_MAX}; join some, such as mon-fri")
        return cls(windows, text.strip())

    def at(self, moment: datetime, zone: tzinfo) -> Opening:
        """How it stands at this moment, which carries a zone of its own, where clocks are set as in `zone`."""
        assert moment.tzinfo is not None, "a moment without a zone is no moment"
        if not self.windows:
            return Opening(True)
        moment = moment.astimezone(UTC)
        is_open = self._open_at(moment, zone)
        for instant in self._instants(moment, zone):
            if self._open_at(instant, zone) is not is_open:
                seconds = (instant - moment).total_seconds()
                return Opening(True, closes_in=seconds) if is_open else Opening(False, opens_in=seconds)
        return Opening(is_open)

    def _open_at(self, moment: datetime, zone: tzinfo) -> bool:
        wall = moment.astimezone(zone)
        return any(window.holds(wall.weekday(), wall.hour * 60 + wall.minute) for window in self.windows)

    def _instants(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Those after `moment` at which something may change, in order: the wall clock at an edge, or set anew."""
        edges = sorted({0} | {edge % _MINUTES_A_DAY for w in self.windows for edge in (w.start, w.end)})
        end = moment + timedelta(seconds=LOOK_AHEAD_SECONDS)
        while moment < end:
            wall = moment.astimezone(zone).replace(tzinfo=None)
            to_edge = _next_edge(wall, edges) - wall
            then = moment + min(to_edge, timedelta(seconds=_STEP_SECONDS))
            if _offset(then, zone) != _offset(moment, zone):
                then = _clock_change(moment, then, zone)
            yield then
            moment = then


def _next_edge(wall: datetime, edges: list[int]) -> datetime:
    day = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for edge in [*edges, _MINUTES_A_DAY]:
        if (at := day + timedelta(minutes=edge)) > wall:
            return at
    raise AssertionError("midnight comes after every moment of a day")


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The first instant with another offset than `before`, which has that of `after` or comes before it."""
    low = int((before - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))
    high = low + int((after - before) / timedelta(seconds=1)) + 1
    offset = _offset(before, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), zone) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


# --- what people write -----------------------------------------------------------------------------


def _windows(text: str) -> Iterator[Window]:
    days_before = ""
    for piece, separator in re.findall(r"([^,;]*)([,;]|$)", text.lower()):
        piece = piece.strip()
        if not piece:
            if separator:
                raise ScheduleInvalid(f"schedule {text!r}: nothing stands before a {separator!r}; take that out")
            if not days_before:
                continue
        if piece and separator == "," and not any(map(str.isdigit, piece)):
            days_before += f"{piece},"
            continue
        written, days_before = days_before + piece, ""
        yield _window(written.rstrip(","))


def _window(written: str) -> Window:
    found = re.match(r"[^\d]*", written)
    days_text = found.group().strip(" ,") if found else ""
    times_text = written[len(found.group()) if found else 0 :].strip()
    if not times_text:
        raise _invalid(written, "it has days and no hours", f"{_days_suggested(days_text)}00:00-24:00")
    times = _TIMES.fullmatch(times_text)
    if times is None:
        raise _invalid(written, f"{times_text!r} is not HH:MM-HH:MM", _suggested(days_text, times_text))
    start, end = _minute(*times.groups()[:2]), _minute(*times.groups()[2:])
    if start is None or end is None:
        raise _invalid(written, "hours are 00:00 to 24:00", _suggested(days_text, times_text))
    if start == _MINUTES_A_DAY:
        raise _invalid(written, "24:00 can only be an end", _suggested(days_text, f"00:00-{times_text.split('-')[-1]}"))
    if start == end:
        raise _invalid(
            written, "it ends when it begins; a whole day is 00:00-24:00", _suggested(days_text, "00:00-24:00")
        )
    return Window(_days(written, days_text, times_text), start, end)


def _minute(hour: str, minute: str) -> int | None:
    value = int(hour) * 60 + int(minute)
    return value if int(minute) < 60 and value <= _MINUTES_A_DAY else None


def _days(written: str, text: str, times: str) -> frozenset[int]:
    if text in ("", "daily"):
        return EVERY_DAY
    days = set[int]()
    for part in text.split(","):
        ends = [_DAY_NUMBER.get(name.strip()) for name in re.split("[-–]", part)]
        if None in ends or len(ends) > 2:
            what = f"{part.strip()!r} is no day: mon, tue, wed, thu, fri, sat, sun, a range of them, or daily"
            raise _invalid(written, what, _suggested(text, times))
        numbers = [number for number in ends if number is not None]
        first, last = numbers[0], numbers[-1]
        days.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return frozenset(days)


def _invalid(written: str, what: str, nearest: str) -> ScheduleInvalid:
    return ScheduleInvalid(f"schedule {written!r}: {what}. A window is {FORM}; the nearest is {nearest!r}")


def _suggested(days: str, times: str) -> str:
    """The nearest right window."""
    found = _LOOSE.search(times)
    if found is None:
        return f"{_days_suggested(days)}22:00-08:00"
    start, end = _loose(*found.groups()[:3]), _loose(*found.groups()[3:])
    start %= _MINUTES_A_DAY
    end = _MINUTES_A_DAY if start == end else end
    return f"{_days_suggested(days)}{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"


def _loose(hour: str, minute: str | None, half: str | None) -> int:
    hours = int(hour) % 12 + 12 * (half == "pm") if half else int(hour)
    return min(hours * 60 + min(int(minute or 0), 59), _MINUTES_A_DAY)


def _days_suggested(text: str) -> str:
    if "daily" in text:
        return "daily "
    parts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        names = [_nearest_day(name.strip()) for name in re.split("[-–]", _OTHER_DAYS.get(part, part)) if name.strip()]
        if names:
            parts.append("-".join(names[:2]))
    return f"{','.join(parts)} " if parts else ""


def _nearest_day(name: str) -> str:
    """The day that begins most like it."""

    def alike(day: str) -> int:
        return sum(1 for length in range(1, 10) if day[:length] == name[:length]) if name else 0

    best = max(_FULL, key=alike)
    return best[:3] if alike(best) else "mon"
