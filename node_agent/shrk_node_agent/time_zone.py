"""Time zones by name, from the machine's own database; and what is said where there is none of that name."""

from __future__ import annotations

import difflib
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path

#: As many as one reads at a glance.
NEAREST_MAX = 3
#: Of the machine's own zone, where the machine has it as a copy without a name.
NAMELESS = "local time"


@dataclass(frozen=True, slots=True)
class InForce:
    """The zone in which hours are meant, in words."""

    name: str
    #: Why it is that one, where no setting says so.
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.why}" if self.why else self.name


def zone(name: str, machines_own: Path = Path("/etc/localtime")) -> tzinfo:
    """The zone of this name; of "" the machine's own, which is UTC where it has none. Raises ValueError.

    `str` of it is its name.
    """
    if name:
        return named_zone(name)
    try:
        with machines_own.open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key=_name_of(machines_own))
    except (OSError, ValueError):
        return UTC


def in_force(name: str, zone: tzinfo) -> InForce:
    """What to tell of the zone that `zone` found for the setting `name`."""
    if name:
        return InForce(name)
    return (
        InForce("UTC", "since this machine names no zone") if zone is UTC else InForce(str(zone), "the machine's own")
    )


def _name_of(machines_own: Path) -> str:
    """It is a link into the database of zones, mostly; else it has no name."""
    _, database, name = str(machines_own.resolve()).partition("/zoneinfo/")
    return name if database else NAMELESS


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
