"""Time zones by name, from the machine's own database; and what is said where there is none of that name."""

from __future__ import annotations

import difflib
import zoneinfo
from datetime import UTC, tzinfo
from pathlib import Path

#: As many as one reads at a glance.
NEAREST_MAX = 3


def zone(name: str, machines_own: Path = Path("/etc/localtime")) -> tzinfo:
    """The zone of this name; of "" the machine's own, which is UTC where it has none. Raises ValueError."""
    if name:
        return named_zone(name)
    try:
        with machines_own.open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key="the machine's own")
    except (OSError, ValueError):
        return UTC


def named_zone(name: str) -> zoneinfo.ZoneInfo:
    """The zone, such as Europe/Berlin. Raises ValueError with the nearest names."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(_unknown(name)) from error


def _unknown(name: str) -> str:
    known = zoneinfo.available_timezones()
    if not known:
        return f"{name!r} cannot be looked up: this machine has no time zones; install the package tzdata"
    if nearest := _nearest(name, known):
        return f"{name!r} is not a time zone; did you mean {' or '.join(nearest)}?"
    return (
        f"{name!r} is not a time zone; write one such as Europe/Berlin or UTC, or leave it empty for the machine's own"
    )


def _nearest(name: str, known: set[str]) -> list[str]:
    """By the whole name, and by the city alone: people write "Berlin"."""
    by_word = {zone.lower(): zone for zone in sorted(known)}
    cities = {zone.rpartition("/")[2].lower(): zone for zone in sorted(known, reverse=True)}
    wanted = name.strip().lower().replace(" ", "_")
    found = [by_word[word] for word in difflib.get_close_matches(wanted, by_word, n=NEAREST_MAX, cutoff=0.75)]
    city = wanted.rpartition("/")[2]
    found += [cities[word] for word in difflib.get_close_matches(city, cities, n=1, cutoff=0.8)]
    return list(dict.fromkeys(found))[:NEAREST_MAX]
