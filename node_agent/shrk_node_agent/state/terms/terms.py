"""The owner's terms as the door asks for them: hours, heat of each GPU, owner first and pauses, as one permit.

An engine is permitted what all its GPUs are. One that is on none in particular may run on every GPU that the owner
shows us, so that the worst of them holds; only a GPU that has fallen off the bus does not count while there are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo

from shrk_contract.terms import State
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.actuators import Abilities, Actuation, Rung
from shrk_node_agent.state.terms.hours import Opening, Schedule
from shrk_node_agent.state.terms.occupancy import Ours, Owner, When
from shrk_node_agent.state.terms.permit import Pause, Permit, permit
from shrk_node_agent.state.terms.thermal import Heat

#: The cap where an owner says nothing, in degrees Celsius: fans stay quiet, and about a tenth of the speed is lost.
CAP_DEFAULT = 70.0

#: What should be set on which GPU.
Wishes = tuple[tuple[str, Actuation], ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the owner wants, as set."""

    cap: float = CAP_DEFAULT
    schedule: Schedule = field(default_factory=lambda: Schedule.parse(""))
    zone: tzinfo = UTC
    when: When = When.ALWAYS
    #: This machine has GPUs: until one was read nothing is served.
    gpus: bool = False


class Terms:
    """All of them. Times are monotonic seconds, but for the wall clock that is told with them."""

    def __init__(self, wanted: Wanted | None = None) -> None:
        self.wanted = wanted or Wanted()
        self.readings: tuple[GpuReading, ...] = ()
        self.pause: Pause | None = None
        self.opening = Opening(open=True)
        self.heats: dict[str, Heat] = {}
        self._owners: dict[str, Owner] = {}
        #: When the pause ends by the wall clock, from the first tick on that told it.
        self._pause_ends: datetime | None = None
        #: Why nothing could be read when that was last tried; empty: it could.
        self._failure = ""

    def change(self, wanted: Wanted) -> None:
        """The owner has changed them."""
        self.wanted = wanted
        for heat in self.heats.values():
            heat.set_cap(wanted.cap)
        for owner in self._owners.values():
            owner.when = wanted.when

    def read(
        self, now: float, readings: Sequence[GpuReading], abilities: Mapping[str, Abilities], ours: Mapping[str, Ours]
    ) -> Wishes:
        """The GPUs were read; what should be set on them. `ours`: what of each is ours."""
        self._failure = ""
        missing = self._missing(readings)
        for lost in missing:
            self.heats[lost.uuid].reading(now, lost)
        told = {reading.uuid for reading in readings}
        self.readings = (*readings, *(lost for lost in missing if _nameless(lost.index) not in told))
        wishes: list[tuple[str, Actuation]] = []
        for reading in readings:
            heat = self.heats.get(reading.uuid)
            if heat is None:
                heat = self.heats[reading.uuid] = Heat(reading.uuid, reading.index, self.wanted.cap)
                self._owners[reading.uuid] = Owner(reading.uuid, reading.index, self.wanted.when)
            heat.learn(abilities.get(reading.uuid, Abilities()))
            wishes += ((reading.uuid, wish) for wish in heat.reading(now, reading))
            self._owners[reading.uuid].reading(now, reading, ours[reading.uuid])
        return tuple(wishes)

    def pause_for(self, now: float, seconds: float | None, at_once: bool = False) -> None:
        """The owner wants a pause of so many seconds; None: until they resume. One that holds already goes on."""
        if self.pause is not None and self.pause.holds(now):
            since, at_once = self.pause.since, at_once or self.pause.at_once
        else:
            since = now
        self._pause_ends = None
        self.pause = Pause(since, None if seconds is None else now + seconds, at_once)

    def _missing(self, readings: Sequence[GpuReading]) -> list[GpuReading]:
        """The cards that a good reading does not name any more: lost, until one names them again.

        One that was lost before it told its UUID goes by its index, and is forgotten as soon as it has told it.
        """
        told, indexes = {reading.uuid for reading in readings}, {reading.index for reading in readings}
        for index in indexes:
            if _nameless(index) not in told:
                self.heats.pop(_nameless(index), None)
                self._owners.pop(_nameless(index), None)
        names = {reading.uuid: reading.name for reading in self.readings}
        return [
            GpuReading(uuid, heat.index, names.get(uuid, uuid), lost=True)
            for uuid, heat in self.heats.items()
            if uuid not in told
        ]

    def failed(self, reason: str) -> None:
        """The GPUs could not be read."""
        self._failure = reason

    def tick(self, now: float, utc: datetime) -> Wishes:
        """Time has passed; what should be set on GPUs."""
        self.opening = self.wanted.schedule.at(utc, self.wanted.zone)
        if self.pause is not None and self.pause.until is not None:
            # The monotonic clock stands still while a machine sleeps; its owner's does not.
            if self._pause_ends is None:
                self._pause_ends = utc + timedelta(seconds=self.pause.until - now)
            self.pause = replace(self.pause, until=now + (self._pause_ends - utc).total_seconds())
        if self.pause is not None and not self.pause.holds(now):
            self.pause = None
        return tuple((uuid, wish) for uuid, heat in self.heats.items() for wish in heat.tick(now))

    def actuated(self, now: float, uuid: str, rung: Rung, confirmed: bool) -> None:
        """A wish was read back."""
        if heat := self.heats.get(uuid):
            heat.actuated(now, rung, confirmed)

    def permit(self, now: float, devices: Sequence[str] = ()) -> Permit:
        """What may be done now on these GPUs, by their UUIDs; none named: on whichever there are."""
        used = devices or tuple(self.heats)
        thermals = [heat.view for uuid, heat in self.heats.items() if uuid in used]
        if not devices and any(not thermal.lost for thermal in thermals):
            thermals = [thermal for thermal in thermals if not thermal.lost]
        occupancies = [owner.tick(now) for uuid, owner in self._owners.items() if uuid in used]
        allowed = permit(now, self.opening, thermals, occupancies, self.pause)
        if self.wanted.gpus and not self.heats and allowed.state is None:
            why = self._failure or "its GPUs have not been read yet"
            return Permit(State.COOLING, why, "Look at its driver: shrk doctor", admits=False)
        return allowed


def _nameless(index: int) -> str:
    """What stands for the UUID of a card that has not told one: as in `GpuReading`."""
    return f"index-{index}"
