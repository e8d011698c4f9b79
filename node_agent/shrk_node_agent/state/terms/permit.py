"""What the owner's terms permit together, on the GPUs of one engine or of the whole node.

Several can hold at once. What may be done is what all of them allow; the state and its reason are those of the first:

    lost GPU            offline        the machine has to be mended
    pause               paused         until then, or until it is resumed
    outside its hours   off-schedule
    somebody else       paused         owner first
    heat, sensors       cooling
    window closes soon  draining       so that what runs can end

What was not said in the reason is in `also`. Without any of these `state` is None: the engines' own states hold.
Who has to go is given until `drain_by`, and is ended after that, so that its owner has the memory too; only heat, and a
window about to close, leave what is loaded where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shrk_contract.terms import State
from shrk_node_agent.state.terms.hours import Opening
from shrk_node_agent.state.terms.occupancy import Occupancy
from shrk_node_agent.state.terms.thermal import Thermal

#: For answers that run when a window closes or a pause begins; the usual one takes half of it.
DRAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Pause:
    """The owner wants a pause. Monotonic seconds."""

    since: float
    #: None: until it is resumed.
    until: float | None = None
    #: Without letting answers end.
    at_once: bool = False

    def holds(self, now: float) -> bool:
        """Whether it is not over."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Permit:
    """What may be done now."""

    state: State | None = None
    reason: str = ""
    next_action: str = ""
    admits: bool = True
    #: Of the slots, 0 to 1; what runs beyond it is moved elsewhere.
    slot_share: float = 1.0
    #: Monotonic seconds: what runs then is moved elsewhere. In the past: at once.
    drain_by: float | None = None
    #: Engines are ended.
    stop: bool = False
    #: Seconds until the window closes; None: it does not, or is closed.
    closes_in: float | None = None
    #: What else holds, in words.
    also: tuple[str, ...] = ()


def permit(
    now: float,
    opening: Opening,
    thermals: Sequence[Thermal] = (),
    occupancies: Sequence[Occupancy] = (),
    pause: Pause | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> Permit:
    """All terms as one. Times are monotonic seconds."""
    said = [
        *(_lost(now, thermal) for thermal in thermals if thermal.lost),
        *_paused(now, pause, drain_seconds),
        *_hours(now, opening),
        *(_theirs(now, occupancy) for occupancy in occupancies if occupancy.theirs),
        *(_hot(now, thermal) for thermal in thermals if not thermal.lost and not thermal.admits),
        *_closing(now, opening, drain_seconds),
    ]
    slot_share = min((thermal.slot_share for thermal in thermals), default=1.0)
    if not said:
        limited = [t for t in thermals if t.slot_share < 1.0 or t.rung]
        reason = "; ".join(f"GPU {t.index}: {t.reason}" for t in limited)
        return Permit(None, reason, slot_share=slot_share, closes_in=opening.closes_in)
    first = said[0]
    return Permit(
        state=first.state,
        reason=first.reason,
        next_action=first.next_action,
        admits=False,
        slot_share=0.0 if any(one.stop for one in said) else slot_share,
        drain_by=min((one.drain_by for one in said if one.drain_by is not None), default=None),
        stop=any(one.stop for one in said),
        closes_in=opening.closes_in,
        also=tuple(one.reason for one in said[1:]),
    )


def node_permit(permits: Iterable[Permit]) -> Permit:
    """The node's own, from those of its engines: that of the one that may do most."""
    return max(permits, key=lambda p: (p.state is None, p.admits, not p.stop, p.slot_share), default=Permit())


def _lost(now: float, thermal: Thermal) -> Permit:
    reason = f"GPU {thermal.index}: {thermal.reason}"
    return Permit(State.OFFLINE, reason, thermal.next_action, drain_by=now, stop=True)


def _paused(now: float, pause: Pause | None, drain_seconds: float) -> Iterator[Permit]:
    if pause is None or not pause.holds(now):
        return
    drain_by = pause.since if pause.at_once else pause.since + drain_seconds
    how_long = "until it is resumed" if pause.until is None else f"for another {in_words(pause.until - now)}"
    yield Permit(
        State.PAUSED, f"paused by its owner {how_long}", "shrk resume", drain_by=drain_by, stop=now >= drain_by
    )


def _hours(now: float, opening: Opening) -> Iterator[Permit]:
    if opening.open:
        return
    opens = "never" if opening.opens_in is None else f"in {in_words(opening.opens_in)}"
    yield Permit(
        State.OFF_SCHEDULE,
        f"outside its owner's hours; it opens {opens}",
        "Nothing; `shrk set schedule` changes its hours.",
        drain_by=now,
        stop=True,
    )


def _theirs(now: float, occupancy: Occupancy) -> Permit:
    return Permit(
        State.PAUSED,
        f"GPU {occupancy.index}: {occupancy.reason}",
        occupancy.next_action,
        drain_by=occupancy.drain_by,
        stop=occupancy.drain_by is not None and now >= occupancy.drain_by,
    )


def _hot(now: float, thermal: Thermal) -> Permit:
    drain_by = now if thermal.drain or thermal.stop else None
    reason = f"GPU {thermal.index}: {thermal.reason}"
    return Permit(State.COOLING, reason, thermal.next_action, drain_by=drain_by, stop=thermal.stop)


def _closing(now: float, opening: Opening, drain_seconds: float) -> Iterator[Permit]:
    if opening.open and opening.closes_in is not None and opening.closes_in <= drain_seconds:
        reason = f"its owner's hours end in {in_words(opening.closes_in)}"
        yield Permit(State.DRAINING, reason, "Nothing: what runs may end.", drain_by=now + opening.closes_in)


def in_words(seconds: float) -> str:
    """50 s, 12 min, 5 h 12 min, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
