"""What a GPU's thermometer is worth: where it stands, where it is going, and whether it can be believed.

    WAITING --> TOLD      the first temperature
            --> UNKNOWN   a reading without one, and there never was one
            --> SILENT    no reading for SILENCE_SECONDS_MAX
    UNKNOWN --> TOLD
    TOLD    --> SILENT    no temperature for SILENCE_SECONDS_MAX
            --> ABSURD    one that no card has
    SILENT, ABSURD --> TOLD   a temperature that can be

In all but TOLD the card counts as hot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

#: Five readings are missing: a card under load may have warmed by five degrees meanwhile.
SILENCE_SECONDS_MAX = 5.0
#: 255 and 0 are what broken sensors tell; a card is switched off by itself long before 150.
CELSIUS_MAX = 150.0
#: Long enough for a slope out of whole degrees, short enough to see a fan fail.
SLOPE_SECONDS = 6.0
#: Over less than this, one step of a whole degree would look like a fire.
SLOPE_SECONDS_MIN = 3.0
#: Drivers tell whole degrees and cut off: 67 may be almost 68, and is where it has just risen to that.
GRAIN_CELSIUS = 1.0
#: A reading is missing. A card that is given all its slots meanwhile warms by about as much as this.
LATE_SECONDS = 2.0
UNTOLD_CELSIUS_PER_SECOND = 1.0


class Trust(Enum):
    """What is known; the picture above."""

    WAITING = "waiting"
    TOLD = "told"
    UNKNOWN = "unknown"
    SILENT = "silent"
    ABSURD = "absurd"


@dataclass(slots=True)
class Gauge:
    """One thermometer. Times are monotonic seconds."""

    silence_seconds: float = SILENCE_SECONDS_MAX
    trust: Trust = Trust.WAITING
    #: The last that can be.
    celsius: float | None = None
    #: When that was; before there was any, when it was first waited for.
    told_at: float | None = None
    #: The last one that cannot be.
    absurd: float | None = None
    rising: bool = False
    #: Degrees a second, by least squares over the last readings; never below 0.
    slope: float = 0.0
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def read(self, now: float, celsius: float | None) -> None:
        """A reading came; None: without a temperature."""
        if celsius is None:
            if self.celsius is None and self.trust is not Trust.ABSURD:
                self.trust = Trust.UNKNOWN
        elif not 0.0 < celsius <= CELSIUS_MAX:  # so that what is not a number is absurd too
            self.trust, self.absurd = Trust.ABSURD, celsius
            self._recent.clear()
        else:
            self._told(now, celsius)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.told_at is None:
            self.told_at = now
        if self.trust in (Trust.WAITING, Trust.TOLD) and self.quiet(now) > self.silence_seconds:
            self.trust = Trust.SILENT
            self._recent.clear()

    def quiet(self, now: float) -> float:
        """Seconds since it told a temperature."""
        return 0.0 if self.told_at is None else now - self.told_at

    def _told(self, now: float, celsius: float) -> None:
        if self.celsius is not None and celsius != self.celsius:
            self.rising = celsius > self.celsius
        if self.trust is not Trust.TOLD:
            self._recent.clear()
        self.trust, self.celsius, self.told_at = Trust.TOLD, celsius, now
        self._recent.append((now, celsius))
        while now - self._recent[0][0] > SLOPE_SECONDS:
            self._recent.popleft()
        self.slope = self._slope()

    def _slope(self) -> float:
        recent = self._recent
        if recent[-1][0] - recent[0][0] < SLOPE_SECONDS_MIN:
            return 0.0
        mean_at = mean_celsius = 0.0
        for at, celsius in recent:
            mean_at += at
            mean_celsius += celsius
        mean_at, mean_celsius = mean_at / len(recent), mean_celsius / len(recent)
        together = spread = 0.0
        for at, celsius in recent:
            together += (at - mean_at) * (celsius - mean_celsius)
            spread += (at - mean_at) ** 2
        return max(0.0, together / spread)

    def forecast(self, now: float, seconds: float) -> float:
        """Where it will be in so many seconds, if it goes on like this; where it is believed."""
        assert self.celsius is not None, "a forecast is asked for where there is a temperature"
        untold = max(0.0, self.quiet(now) - LATE_SECONDS) * UNTOLD_CELSIUS_PER_SECOND
        return self.celsius + self.slope * seconds + untold

    def warmest(self, now: float, seconds: float) -> float:
        """The same, and what whole degrees hide."""
        hidden = GRAIN_CELSIUS if self.rising and self.celsius == int(self.celsius or 0.0) else 0.0
        return max(self.forecast(now, seconds), (self.celsius or 0.0) + hidden)
