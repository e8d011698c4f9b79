"""Lengths of time as owners type them: `2h`, `90m`, `1h30m`, `until 08:00`."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from shrk_node_agent.commands.ending import WrongUsage
from shrk_node_agent.pauses import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")

#: What can be typed, for messages.
FORMS = "2h, 30m, 1h30m, 2d, or until 08:00"


def seconds_of(words: Sequence[str], now: float) -> float:
    """How long `2h`, or `until 08:00` (this machine's clock), is from `now` in unix seconds. Raises WrongUsage."""
    text = " ".join(words).strip().lower()
    if text.startswith("until"):
        seconds = _until(text.removeprefix("until").strip(), now)
    else:
        found = _DURATION.fullmatch(text)
        if not text or found is None:
            unit = "; say the unit, too" if text.isdecimal() else ""
            raise WrongUsage(f"{text!r} is no length of time{unit}: type {FORMS}")
        seconds = sum(
            int(count) * length for count, length in zip(found.groups(), _UNITS.values(), strict=True) if count
        )
    if not PAUSE_SECONDS_MIN <= seconds <= PAUSE_SECONDS_MAX:
        raise WrongUsage(
            f"{text!r} is not between {PAUSE_SECONDS_MIN} s and {PAUSE_SECONDS_MAX // 86_400} d: type {FORMS}; to end "
            "it for longer: shrk stop"
        )
    return seconds


def _until(clock: str, now: float) -> float:
    """To the next moment at which clocks on the wall show this; the day may have 23 or 25 hours."""
    found = _CLOCK.fullmatch(clock)
    if found is None or not (int(found[1]) < 24 and int(found[2]) < 60):
        raise WrongUsage(f"{clock!r} is no time of day: type it as 00:00 to 23:59, such as until 08:00")
    today = time.localtime(now)
    for day in (0, 1):
        moment = time.mktime(
            (today.tm_year, today.tm_mon, today.tm_mday + day, int(found[1]), int(found[2]), 0, 0, 0, -1)
        )
        # One that begins at once would have ended before it is typed.
        if moment - now >= PAUSE_SECONDS_MIN:
            return moment - now
    raise AssertionError("tomorrow's moment is later than today's")
