"""The hours in which an owner lets a node serve. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_WINDOW = re.compile(r"(?:(?P<days>[a-z][a-z,-]*)\s+)?(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d)")


class ScheduleInvalid(ValueError):
    """The text is no schedule. `str()` says what is wrong, and what one looks like."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a node may serve."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ScheduleInvalid."""
        for window in re.split(r"[;,]\s*(?=\S*\s*\d|\S+\s)", text.strip()) if text.strip() else ():
            match = _WINDOW.fullmatch(window.strip().lower())
            if match is None or match["begin"] > "23:59" or match["end"] > "24:00" or match["begin"] == match["end"]:
                raise ScheduleInvalid(
                    f"{window!r} is not a window such as 22:00-08:00 or mon-fri 22:00-08:00, with hours from 00:00 to "
                    "24:00"
                )
        return cls(text)
