"""Owner first: whether somebody else uses a GPU, and so when we let go of it.

    ours   --> theirs   another program holds memory there, or the GPU is busy and not with us
    theirs --> ours     nothing of that for BACK_SECONDS

A program that holds less than a desktop's own windows do is not somebody. Where the driver does not tell processes,
what is taken and not ours counts, and the reason says so. A GPU that does work which we did not give it is another's;
in the mode "idle" little of that is enough.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from shrk_node_agent.state.devices import GpuReading

#: What a desktop and its browser hold, all day long.
PROGRAM_BYTES_MIN = 512 * 1024 * 1024
#: What drivers keep for themselves, and what our engines take beyond what they say, where processes are not told.
UNTOLD_BYTES_MIN = 1536 * 1024 * 1024
#: Of the GPU's time, without a share of ours. Windows that are moved about take a third of a small card.
BUSY_SHARE_MIN = 0.5
#: In the mode "idle"; a still desktop takes some hundredths.
BUSY_SHARE_IDLE_MIN = 0.1
#: A moment's work is not somebody; and what we have just ended still shows as work.
BUSY_SECONDS = 3.0
#: The owner has the GPU back by then.
DRAIN_SECONDS_MAX = 5.0
#: A game between two levels, a pause between two renderings.
BACK_SECONDS = 60.0
#: A process of ours that has just ended may still be listed.
GONE_SECONDS = 30.0


class When(StrEnum):
    """The owner's setting `when`: how much of another program sends us away. Its memory counts in both modes."""

    #: Half of the GPU's time.
    ALWAYS = "always"
    #: A tenth of it.
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class _Found:
    """Somebody else is there."""

    reason: str
    #: The process, where the driver tells it and this machine has it under the same number.
    pid: int | None = None

    @property
    def next_action(self) -> str:
        """What an owner can do while it stays."""
        which = f" (which it is: ps -p {self.pid})" if self.pid is not None else ""
        return (
            f"It takes work again {BACK_SECONDS:.0f} s after that has ended{which}. What stays, as a desktop or a "
            "browser does: close it, or leave this GPU out of `visible_devices`."
        )


@dataclass(frozen=True, slots=True)
class Ours:
    """What of a GPU is ours. Where processes have other numbers than here (in containers), `pids` is None."""

    #: Of our engines' process trees, looked at after the reading: a child that was born in between is not a stranger.
    pids: Collection[int] | None = ()
    #: What our engines there may take.
    memory_bytes: int = 0
    #: They answer or load, so that the GPU's work may be ours.
    working: bool = False


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Whether a GPU is its owner's now."""

    uuid: str
    index: int
    theirs: bool = False
    #: Monotonic seconds by which what runs has ended or moved; None: it may go on.
    drain_by: float | None = None
    reason: str = ""
    next_action: str = ""

    @property
    def admits(self) -> bool:
        """Whether it may be given new work."""
        return not self.theirs


@dataclass(slots=True)
class Owner:
    """Watches one GPU. Times are monotonic seconds."""

    uuid: str
    index: int
    when: When = When.ALWAYS
    _since: float | None = None
    _seen_at: float = 0.0
    _busy_since: float | None = None
    _found: _Found | None = None
    #: When each of our processes was last seen among ours.
    _ours: dict[int, float] = field(default_factory=dict)

    def reading(self, now: float, reading: GpuReading, ours: Ours) -> Occupancy:
        """It was read, and this of it is ours."""
        if reading.lost:
            return self.tick(now)
        self._ours |= dict.fromkeys(ours.pids or (), now)
        self._ours = {pid: at for pid, at in self._ours.items() if now - at < GONE_SECONDS}
        found = self._memory(reading, ours) or self._work(now, reading, ours)
        if found is not None:
            self._since = now if self._since is None else self._since
            self._seen_at, self._found = now, found
        return self.tick(now)

    def tick(self, now: float) -> Occupancy:
        """How it stands."""
        if self._since is not None and now - self._seen_at >= BACK_SECONDS:
            self._since = self._found = None
        if self._since is None or self._found is None:
            return Occupancy(self.uuid, self.index)
        ago = now - self._seen_at
        return Occupancy(
            self.uuid,
            self.index,
            theirs=True,
            drain_by=self._since + DRAIN_SECONDS_MAX,
            reason=self._found.reason if ago <= 0 else f"{self._found.reason}, {ago:.0f} s ago",
            next_action=self._found.next_action
            if ago <= 0
            else f"Nothing: it takes work again in {BACK_SECONDS - ago:.0f} s.",
        )

    def _memory(self, reading: GpuReading, ours: Ours) -> _Found | None:
        """Who holds memory there; None: nobody."""
        if reading.processes is not None and ours.pids is not None:
            others = [p for p in reading.processes if p.pid not in self._ours]
            large = [p for p in others if (p.memory_bytes or 0) >= PROGRAM_BYTES_MIN]
            if large:
                most = max(large, key=lambda p: p.memory_bytes or 0)
                beside = f" and {len(large) - 1} more" if len(large) > 1 else ""
                holds = f"another program (process {most.pid}{beside}) holds {_gb(most.memory_bytes or 0)} of it"
                return _Found(holds, most.pid)
            if all(p.memory_bytes is not None for p in others):
                return None
        if reading.memory_free_bytes is None or not reading.memory_bytes:
            return None
        taken = reading.memory_bytes - reading.memory_free_bytes - ours.memory_bytes
        if taken < UNTOLD_BYTES_MIN:
            return None
        return _Found(f"{_gb(taken)} of it are taken and not by us (its driver does not tell by whom)")

    def _work(self, now: float, reading: GpuReading, ours: Ours) -> _Found | None:
        """Whether it works, and not for us; None: no."""
        least = BUSY_SHARE_IDLE_MIN if self.when is When.IDLE else BUSY_SHARE_MIN
        share = reading.utilisation
        alone = bool(reading.processes) and all(process.pid in self._ours for process in reading.processes or ())
        if share is None or share < least or ours.working or alone:
            self._busy_since = None
            return None
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now - self._busy_since < BUSY_SECONDS:
            return None
        return _Found(f"another program keeps it busy ({share:.0%})")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
