"""Heat: what one GPU may be given to do, so that it stays below its owner's cap.

    admits --> shut     the forecast is at cap - SHUT_BELOW_CAP, or the temperature cannot be believed
    shut   --> admits   cap - OPEN_BELOW_CAP or less for COOL_SECONDS, and not FLIPS_MAX changes within an hour

    and above that, each with the next, up; all the way down at once, when it has been cool for COOL_SECONDS:

    target temperature --> power limit --> fewer slots (the forecast is at the cap; none at cap + 1)
        --> drain (cap + 3 for DRAIN_SECONDS, or the card slows itself down) --> stop (cap + 8)

Fewer slots hold for what runs already: what is beyond them is moved to other nodes. The forecast is the last reading
and its slope, LEAD_SECONDS on. A card that lost part of its slots comes back with half of those it had, and gets them
back one doubling in RAISE_SHARE_SECONDS.

A thermometer that is silent or absurd counts as hot, and one that never told anything too: a card without a thermometer
takes no work. There is no cap that allows it, since nothing could hold one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from shrk_node_agent.state.devices import HARDWARE_THERMAL, GpuReading
from shrk_node_agent.state.terms.actuators import Abilities, Actuation, Actuators, Rung
from shrk_node_agent.state.terms.gauge import SILENCE_SECONDS_MAX, Gauge, Trust

#: What runs goes on to make heat when nothing new is taken; and three degrees between shutting and opening.
SHUT_BELOW_CAP = 2.0
OPEN_BELOW_CAP = 5.0
#: A heat sink is slower than its thermometer: what is cool for a moment is not.
COOL_SECONDS = 30.0
#: The gentler rungs have not held it, and had their time.
DRAIN_ABOVE_CAP = 3.0
DRAIN_SECONDS = 10.0
#: Whatever the card does for itself at such a temperature, its owner wanted less.
STOP_ABOVE_CAP = 8.0
#: A node that comes and goes costs more than it gives. Shutting is always allowed, so opening waits for two of these.
FLIPS_MAX = 6
FLIPS_SECONDS = 3600.0
#: What it takes until fewer slots are felt: the next reading, and the time in which answers are moved. A single step of
#: a whole degree, the steepest slope of a card that warms slowly, stays below one more degree.
LEAD_SECONDS = 3.5
#: A card that works and cannot be seen is emptied: answers have had their usual time by then.
BLIND_SECONDS_MAX = 60.0
#: The least share of slots with which a card comes back.
SHARE_MIN = 0.125
#: At a share that has held this long, twice as much is tried.
RAISE_SHARE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the simulation varies to see that it matters."""

    shut_below_cap: float = SHUT_BELOW_CAP
    open_below_cap: float = OPEN_BELOW_CAP
    cool_seconds: float = COOL_SECONDS
    lead_seconds: float = LEAD_SECONDS
    silence_seconds: float = SILENCE_SECONDS_MAX
    flips: float = FLIPS_MAX


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Thermal:
    """What heat leaves of one GPU."""

    uuid: str
    index: int
    rung: Rung = Rung.NONE
    admits: bool = True
    #: Of its engines' slots, 0 to 1; what runs beyond it is moved elsewhere.
    slot_share: float = 1.0
    #: Its engines hand on all that they do; they stay loaded.
    drain: bool = False
    #: Its engines are ended, whatever they do.
    stop: bool = False
    #: It has fallen off the bus: what ran on it is gone, and nothing can be started there.
    lost: bool = False
    celsius: float | None = None
    reason: str = ""
    next_action: str = ""


@dataclass(slots=True)
class Heat:
    """The controller of one GPU. `cap` in degrees Celsius; times are monotonic seconds."""

    uuid: str
    index: int
    cap: float
    abilities: Abilities = field(default_factory=Abilities)
    limits: Limits = LIMITS
    view: Thermal = field(init=False)
    _gauge: Gauge = field(init=False)
    _actuators: Actuators = field(init=False)
    _reading: GpuReading | None = None
    _admits: bool = False
    #: It has been shut by heat, or by a temperature that nobody believes: it opens when it is cool, not before.
    _shut: bool = False
    _flips: deque[float] = field(default_factory=deque)
    _cool_since: float | None = None
    _over_since: float | None = None
    _blind_since: float | None = None
    _draining: bool = False
    _stopped: bool = False
    #: The share with which it opens, and since when it has held.
    _ceiling: float = 1.0
    _ceiling_since: float = 0.0
    #: The share that is left in this spell of heat.
    _cut: float = 1.0

    def __post_init__(self) -> None:
        self._gauge = Gauge(self.limits.silence_seconds)
        self._actuators = Actuators(self.cap, self.abilities)
        self.view = self._viewed(0.0)

    def reading(self, now: float, reading: GpuReading) -> tuple[Actuation, ...]:
        """It was read; what should be set now."""
        self._reading = reading
        if not reading.lost:
            self._gauge.read(now, reading.temperature_celsius)
            if reading.power_limit_watts is not None:
                self._actuators.told(now, reading.power_limit_watts)
        return self.tick(now)

    def tick(self, now: float) -> tuple[Actuation, ...]:
        """Time has passed, at least once a second; what should be set now."""
        self._gauge.tick(now)
        believed = self._gauge.trust is Trust.TOLD and not self._lost
        self._watch(now, believed)
        self._admit(now, believed)
        if believed:
            self._share(now)
        self.view = self._viewed(now)
        if not believed or self._gauge.celsius is None:
            return ()
        return self._actuators.wishes(now, self._gauge.celsius, self._forecast(now))

    def actuated(self, now: float, rung: Rung, confirmed: bool) -> None:
        """A wish was read back; `confirmed` where it is so."""
        self._actuators.actuated(now, rung, confirmed)
        self.view = self._viewed(now)

    def set_cap(self, cap: float) -> None:
        """The owner has another cap, in degrees Celsius; it holds from the next reading or tick on."""
        self.cap = cap
        self._actuators.set_cap(cap)

    def learn(self, told: Abilities) -> None:
        """What can be set on this card, as far as its driver tells now."""
        self._actuators.abilities = self._actuators.abilities.and_told(told)

    # --- what follows --------------------------------------------------------------------------------

    @property
    def _lost(self) -> bool:
        return self._reading is not None and self._reading.lost

    @property
    def _slows(self) -> bool:
        return self._reading is not None and HARDWARE_THERMAL in self._reading.throttle

    def _forecast(self, now: float) -> float:
        return self._gauge.forecast(now, self.limits.lead_seconds)

    def _watch(self, now: float, believed: bool) -> None:
        """Since when it is cool, far above its cap, or not to be seen."""
        celsius = self._gauge.celsius if believed else None
        if celsius is None or celsius > self.cap - self.limits.open_below_cap:
            self._cool_since = None
        elif self._cool_since is None:
            self._cool_since = now
        if celsius is None or celsius < self.cap + DRAIN_ABOVE_CAP:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
        if believed or self._gauge.trust is Trust.WAITING:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = now
        if self._cool(now):
            self._draining = self._stopped = False
        over = self._over_since is not None and now - self._over_since >= DRAIN_SECONDS
        blind = self._blind_since is not None and now - self._blind_since >= BLIND_SECONDS_MAX
        self._draining |= over or blind or (believed and self._slows)
        self._stopped |= celsius is not None and celsius >= self.cap + STOP_ABOVE_CAP

    def _cool(self, now: float) -> bool:
        return self._cool_since is not None and now - self._cool_since >= self.limits.cool_seconds

    def _admit(self, now: float, believed: bool) -> None:
        hot = (
            not believed or self._gauge.warmest(now, self.limits.lead_seconds) >= self.cap - self.limits.shut_below_cap
        )
        hot |= self._draining or self._stopped
        self._shut |= hot and self._gauge.trust is not Trust.WAITING
        if self._admits and hot:
            self._flip(now, False)
        elif not self._admits and not hot and (not self._shut or (self._cool(now) and not self._opens_at(now))):
            self._shut = False
            self._flip(now, True)
            self._ceiling_since = now

    def _flip(self, now: float, admits: bool) -> None:
        self._admits = admits
        self._flips.append(now)

    def _opens_at(self, now: float) -> float | None:
        """When it may be opened again, where it has changed too often; None: it has not."""
        while self._flips and now - self._flips[0] >= FLIPS_SECONDS:
            self._flips.popleft()
        over = len(self._flips) - math.floor(min(self.limits.flips, 1e9)) + 1
        return self._flips[over] + FLIPS_SECONDS if over >= 0 and len(self._flips) > over else None

    def _share(self, now: float) -> None:
        forecast = self._forecast(now)
        if self._cool(now):
            self._cut = 1.0
        if forecast >= self.cap:
            if self._cut == 1.0:
                self._ceiling, self._ceiling_since = max(SHARE_MIN, self._ceiling / 2), now
            self._cut = 0.0 if forecast >= self.cap + 1.0 else min(self._cut, self._ceiling)
        elif self._admits and self._ceiling < 1.0 and now - self._ceiling_since >= RAISE_SHARE_SECONDS:
            self._ceiling, self._ceiling_since = min(1.0, self._ceiling * 2), now

    # --- what is told --------------------------------------------------------------------------------

    def _viewed(self, now: float) -> Thermal:
        share = min(self._cut, self._ceiling)
        rung = self._actuators.rung
        if self._stopped:
            rung = Rung.STOP
        elif self._draining:
            rung = Rung.DRAIN
        elif share < 1.0:
            rung = Rung.FEWER_SLOTS
        reason, next_action = self._words(now, rung)
        return Thermal(
            uuid=self.uuid,
            index=self.index,
            rung=rung,
            admits=self._admits,
            slot_share=0.0 if self._draining or self._stopped or self._lost else share,
            drain=self._draining or self._lost,
            stop=self._stopped or self._lost,
            lost=self._lost,
            celsius=self._gauge.celsius,
            reason=reason,
            next_action=next_action,
        )

    def _words(self, now: float, rung: Rung) -> tuple[str, str]:
        again = f"takes work again at {self.cap - self.limits.open_below_cap:g} °C for {self.limits.cool_seconds:g} s"
        if self._lost:
            return "it has fallen off the bus and does not answer", "Start the machine anew; if it stays so, reseat it."
        match self._gauge.trust:
            case Trust.WAITING:
                return "its first temperature has not come yet", "Nothing: it comes within seconds."
            case Trust.UNKNOWN:
                return (
                    "it tells no temperature, and what cannot be seen cannot be kept below a cap",
                    "Update its driver, or leave it out of `visible_devices`.",
                )
            case Trust.SILENT:
                return (
                    f"no temperature for {self._gauge.quiet(now):.0f} s, which counts as hot; {again}",
                    "Look at its driver.",
                )
            case Trust.ABSURD:
                return f"{self._gauge.absurd:g} °C cannot be, and counts as hot; {again}", "Look at its driver."
            case Trust.TOLD:
                return self._told(now, rung, again)

    def _told(self, now: float, rung: Rung, again: str) -> tuple[str, str]:
        told = f"{self._gauge.celsius:.3g} °C of {self.cap:g} °C"
        if self._slows:
            told += ", and the card slows itself down for heat"
        share = min(self._cut, self._ceiling)
        done = {
            Rung.NONE: "",
            Rung.TARGET_TEMPERATURE: "; the card holds itself below",
            Rung.POWER_LIMIT: f"; its power is limited to {self._actuators.watts or 0.0:.0f} W",
            Rung.FEWER_SLOTS: f"; {share:.0%} of its slots" if share else "; what runs is moved to other nodes",
            Rung.DRAIN: "; what runs is moved to other nodes",
            Rung.STOP: "; its engines were ended",
        }[rung]
        if self._admits:
            limited = rung is Rung.FEWER_SLOTS
            if limited and share:
                left = max(0.0, self._ceiling_since + RAISE_SHARE_SECONDS - now) / 60
                done += f" after it was hot, twice as many in {left:.0f} min if it stays cool"
            air = "Better airflow or a higher `temp_max` gives it more work." if limited else ""
            return f"{told}{done}", air
        at = self._opens_at(now)
        if at is not None and at > now:
            often = f"shut {len(self._flips) // 2} times within the hour"
            again = f"{often}, {again}, in {(at - now) / 60:.0f} min at the earliest"
        if rung is Rung.STOP:
            return f"{told}{done}; {again}", "Look at its fans and filters before it takes work again."
        return (
            f"{told}{done}; {again}",
            "Nothing: it cools down. Better airflow or a higher `temp_max` keeps it at work.",
        )
