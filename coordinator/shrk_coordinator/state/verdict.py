"""What the coordinator thinks of a node, and why: one state, and a checklist that people can act on.

    connected -> identity -> heard -> reported -> takes_work -> hours -> temperature -> models -> trusted -> room
        -> demand

Where an early check fails, those after it cannot be told and are left out. The words of failed checks are those of
`State` and of placement's `Reason`: the same in the API, the command and the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from shrk_contract.terms import REPORT_INTERVAL_SECONDS, SERVING, EngineReport, Report, State
from shrk_coordinator.state.breaker import Breaker
from shrk_coordinator.state.phrases import lasting
from shrk_coordinator.state.placement import CLOSING_SECONDS, HEAT_MARGIN, Reason, takes_nothing
from shrk_coordinator.state.roster import BACK_SECONDS_MAX, Node, Roster
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.starts import ALONE_SECONDS

#: A node that missed one report is slow, one that missed two is not heard.
HEARD_SECONDS_MAX = 2 * REPORT_INTERVAL_SECONDS
#: A model that nobody has asked for in so long brings its nodes no requests, and nothing is wrong with them.
DEMAND_SECONDS_MAX = 3600.0
#: Of a node's own words, and of a list of its models: a line in a table.
TEXT_LENGTH_MAX = 300
LISTED_MAX = 3


class CheckName(StrEnum):
    """What is looked at, in this order."""

    CONNECTED = "connected"
    IDENTITY = "identity"
    HEARD = "heard"
    REPORTED = "reported"
    TAKES_WORK = "takes_work"
    HOURS = "hours"
    TEMPERATURE = "temperature"
    MODELS = "models"
    TRUSTED = "trusted"
    ROOM = "room"
    DEMAND = "demand"


class BreakerState(StrEnum):
    """Whether requests are sent to one model on one node."""

    CLOSED = "closed"
    OPEN = "open"
    #: One request at a time is sent, to see whether it is well again.
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist."""

    name: CheckName
    passed: bool
    #: What was found, for people.
    reason: str = ""
    #: What is wrong, for programs; None where nothing is.
    word: State | Reason | None = None
    #: What to do about it; empty: nothing.
    next_action: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One node, as the coordinator sees it."""

    state: State
    reason: str
    next_action: str
    #: Monotonic seconds.
    since: float
    checks: tuple[Check, ...]


#: What to do about each state, where the node has no better word.
_NEXT: Mapping[State, str] = {
    State.INSTALLING: "Wait: its agent installs what it needs.",
    State.STARTING: "Wait a moment. If it stays so, read the agent's log on that machine.",
    State.DOWNLOADING: "Wait: the model is on its way to that machine.",
    State.LOADING: "Wait: the model goes into the GPU's memory.",
    State.VERIFYING: "Wait: the model's files are checked.",
    State.ONLINE: "",
    State.BUSY: "Nothing is wrong. More nodes would take more requests.",
    State.COOLING: "It takes work again once it is cooler. If that happens often: more air, or a higher temp_max.",
    State.PAUSED: "Its owner can name models for it to serve, or end the pause.",
    State.OFF_SCHEDULE: "It serves again in the hours that its owner allows.",
    State.DRAINING: "Start the agent again when it should serve.",
    State.QUARANTINED: "One request at a time is tried there, and a token makes it well. If it stays so, read the "
    "engine's log on that machine.",
    State.INCOMPATIBLE: "Take it off the node's models, or mend what the reason names and let its owner try again: "
    "shrk resume. For another source, its agent is started again.",
    State.UNREACHABLE: "It may come back by itself. If not, look at that machine's network and load.",
    State.OFFLINE: "Start the agent on that machine, and see that it reaches the coordinator's link port.",
}
_ENROL_ONE = (
    "Enrol one of the two anew: stop its agent, remove its STATE_DIR/identity, and start it with a new join token. The "
    f"other is let in {ALONE_SECONDS / 60:.0f} minutes after that."
)
#: What is worth telling of a node that serves: what loses answers goes before what is not served.
_OF_SERVING = (CheckName.HEARD, CheckName.TRUSTED, CheckName.TEMPERATURE)
#: Which checks explain a state, the first that failed; the others are explained by what became of the models.
_EXPLAINED_BY: Mapping[State, tuple[CheckName, ...]] = {
    State.OFFLINE: (CheckName.CONNECTED,),
    State.UNREACHABLE: (CheckName.HEARD,),
    State.STARTING: (CheckName.REPORTED,),
    State.DRAINING: (CheckName.TAKES_WORK,),
    State.OFF_SCHEDULE: (CheckName.HOURS,),
    State.PAUSED: (CheckName.HOURS,),
    State.COOLING: (CheckName.TEMPERATURE,),
    State.QUARANTINED: (CheckName.IDENTITY, CheckName.TRUSTED),
    State.ONLINE: _OF_SERVING,
    State.BUSY: (*_OF_SERVING, CheckName.ROOM),
}
#: States that the owner's hours and pauses explain.
_HOURS_SAY = (State.OFF_SCHEDULE, State.PAUSED)
#: States of an engine that is not to serve now, or not any more: where others serve, nothing is wrong.
_PUT_AWAY = frozenset({State.PAUSED, State.DRAINING, State.COOLING})


def state_of(node: Node) -> State:
    """A node's one state, without the reasons; costs about two microseconds."""
    if node.link is not None and node.quiet:
        return State.UNREACHABLE
    if node.state not in SERVING:
        return node.state
    if not node.offers:
        engines = node.report.engines if node.report else ()
        return next((e.status.state for e in engines if e.status.state not in SERVING), State.PAUSED)
    trusted = [offer for offer in node.offers.values() if offer.standing.breaker.closed]
    if not trusted:
        return State.QUARANTINED
    return State.ONLINE if any(offer.has_room(queues=False) for offer in trusted) else State.BUSY


def since_of(node: Node, state: State) -> float:
    """Since when, in monotonic seconds; of a node that serves: since when it does, however busy it was."""
    if state is State.UNREACHABLE:
        return node.heard_at
    if state is State.QUARANTINED and node.offers:
        return max(offer.standing.breaker.opened_at for offer in node.offers.values())
    return node.since


def breaker_state(breaker: Breaker, now: float) -> BreakerState:
    """What a breaker lets through."""
    if breaker.closed:
        return BreakerState.CLOSED
    return BreakerState.HALF_OPEN if now >= breaker.open_until else BreakerState.OPEN


def judge(roster: Roster, node: Node, now: float) -> Verdict:
    """The whole verdict. `now`: monotonic seconds."""
    state = state_of(node)
    checks = tuple(_checks(roster, node, now))
    failed = {check.name: check for check in checks if not check.passed and check.name is not CheckName.DEMAND}
    telling = (*_EXPLAINED_BY.get(state, ()), CheckName.MODELS, *failed)
    why = next((failed[name] for name in telling if name in failed), None)
    return Verdict(
        state,
        why.reason if why else "",
        (why.next_action if why else "") or _NEXT[state],
        since_of(node, state),
        checks,
    )


def eligible(node: Node, now: float) -> bool:
    """Whether it would be asked now, if somebody wanted one of its models. `now`: monotonic seconds."""
    return state_of(node) in SERVING and takes_nothing(node, now) is None


def _checks(roster: Roster, node: Node, now: float) -> Iterator[Check]:
    connected = _connected(node, now)
    yield connected
    if node.starts.copied_since is not None:
        yield Check(CheckName.IDENTITY, False, node.starts.words(), State.QUARANTINED, _ENROL_ONE)
    if not connected.passed:
        return
    yield Check(CheckName.IDENTITY, True)
    yield _heard(node, now)
    if node.report is None:
        due = f"it has just connected; its first report is due within {REPORT_INTERVAL_SECONDS:g} s"
        yield Check(CheckName.REPORTED, False, due, State.STARTING, _NEXT[State.STARTING])
        return
    yield Check(CheckName.REPORTED, True)
    yield _takes_work(node)
    yield _hours(node, node.report, now)
    yield _temperature(node.report)
    yield _models(node, node.report)
    if node.offers:
        yield _trusted(node, now)
        yield _room(node)
        yield _demand(roster, node, now)


def _connected(node: Node, now: float) -> Check:
    if node.link is not None:
        return Check(CheckName.CONNECTED, True)
    if node.draining:
        stopped = "it was stopped by its operator"
        return Check(CheckName.CONNECTED, False, stopped, State.OFFLINE, _NEXT[State.DRAINING])
    why = f"its link was lost: {_short(node.lost_why)}" if node.lost_why else "its link was lost"
    soon = now - node.lost_at < BACK_SECONDS_MAX
    remedy = "Wait a few seconds: agents dial again by themselves." if soon else _NEXT[State.OFFLINE]
    return Check(CheckName.CONNECTED, False, why, State.OFFLINE, remedy)


def _heard(node: Node, now: float) -> Check:
    silent = now - node.heard_at
    if not node.quiet and silent <= HEARD_SECONDS_MAX:
        return Check(CheckName.HEARD, True)
    what = "it works for somebody, and nothing" if node.quiet else "nothing"
    remedy = _NEXT[State.UNREACHABLE]
    return Check(CheckName.HEARD, False, f"{what} was heard from it for {silent:.0f} s", Reason.UNWELL, remedy)


def _takes_work(node: Node) -> Check:
    if node.state is not State.DRAINING:
        return Check(CheckName.TAKES_WORK, True)
    why = "its agent is stopping: it ends what runs and takes nothing new"
    return Check(CheckName.TAKES_WORK, False, why, Reason.DRAINING, _NEXT[State.DRAINING])


def _hours(node: Node, report: Report, now: float) -> Check:
    status, schedule = report.status, _short(report.terms.schedule)
    closes_in = math.inf if node.closes_at is None else node.closes_at - now
    # What a hot or lost device drains ends soon too, and not for its hours.
    if status.state not in (*_HOURS_SAY, State.COOLING, State.OFFLINE) and closes_in < CLOSING_SECONDS:
        why = f"its hours end in {max(0.0, closes_in):.0f} s: it takes nothing new"
        return Check(CheckName.HOURS, False, why, Reason.CLOSING, _NEXT[State.OFF_SCHEDULE])
    if status.state not in _HOURS_SAY:
        return Check(CheckName.HOURS, True, f"its hours are {schedule}" if schedule else "")
    plain = "its owner has paused it" if status.state is State.PAUSED else f"it is outside its hours ({schedule})"
    return _own_word(CheckName.HOURS, report, plain)


def _temperature(report: Report) -> Check:
    told = [device.temperature_celsius for device in report.devices if device.temperature_celsius is not None]
    allowed = report.terms.temperature_celsius_max
    found = f"the hottest device is at {max(told):.0f} °C" if told else "no device tells its temperature"
    if allowed:
        found += f", {allowed:.0f} °C are allowed"
    limit = allowed - HEAT_MARGIN
    hot = bool(told) and 0 < limit <= min(told)
    if told and 0 < limit <= max(told) and not hot:
        found += f", and what runs on it waits; the coolest is at {min(told):.0f} °C"
    if report.status.state is State.COOLING:
        return _own_word(CheckName.TEMPERATURE, report, found)
    if hot:
        return Check(CheckName.TEMPERATURE, False, found, State.COOLING, _NEXT[State.COOLING])
    return Check(CheckName.TEMPERATURE, True, found if told else "")


def _own_word(name: CheckName, report: Report, plain: str) -> Check:
    """A failed check that the node itself explains, or else we do."""
    status = report.status
    reason, remedy = _short(status.reason), _short(status.next_action)
    return Check(name, False, reason or plain, status.state, remedy or _NEXT[status.state])


def _models(node: Node, report: Report) -> Check:
    if not report.engines:
        plain = "it has no model to serve"
        return Check(CheckName.MODELS, False, plain, State.PAUSED, _NEXT[State.PAUSED])
    missing = [engine for engine in report.engines if engine.model not in node.offers]
    if node.offers:
        missing = [engine for engine in missing if engine.status.state not in _PUT_AWAY]
    if not missing:
        # Agents offer no engine before that: a canary of its own would be a line that cannot fail.
        answered = "it answered its canary" if len(node.offers) == 1 else "each answered its canary"
        cooling = [e for e in report.engines if e.status.state is State.COOLING and e.model not in node.offers]
        beside = f"; {_listed(cooling)}" if cooling else ""
        return Check(CheckName.MODELS, True, f"it serves {_listed(sorted(node.offers))} ({answered}){beside}")
    first = missing[0].status
    state = first.state if first.state not in SERVING else State.STARTING
    remedy = _short(first.next_action) or _NEXT[state]
    return Check(CheckName.MODELS, False, _listed(missing), state, remedy)


def _trusted(node: Node, now: float) -> Check:
    out = [offer for offer in node.offers.values() if not offer.standing.breaker.closed]
    if not out:
        return Check(CheckName.TRUSTED, True)
    reason = "; ".join(_distrusted(offer, now) for offer in out[:LISTED_MAX])
    word = Reason.UNWELL if all(offer.standing.breaker.stalled for offer in out) else Reason.EJECTED
    return Check(CheckName.TRUSTED, False, reason, word, _NEXT[State.QUARANTINED])


def _distrusted(offer: Offer, now: float) -> str:
    breaker, failure = offer.standing.breaker, offer.standing.last_failure
    since = lasting(now - breaker.opened_at)
    last = f", the last with {_short(failure.code or 'error')}: {_short(failure.message)}" if failure else ""
    what = f"requests have failed for {since} ({breaker.failures} in a row{last})"
    if breaker.stalled:
        what = f"an answer stalled {since} ago"
    return f"'{offer.engine.model}': {what}; it {retried(breaker, now)}"


def retried(breaker: Breaker, now: float) -> str:
    """When what failed there is tried again, said of the node."""
    if (left := breaker.open_until - now) > 0:
        return f"is tried again in {lasting(left)}"
    return "waits for a request to show that it is well" if breaker.allows(now) else "is tried with one request now"


def _room(node: Node) -> Check:
    if any(offer.has_room(queues=False) for offer in node.offers.values()):
        return Check(CheckName.ROOM, True)
    live, slots = (sum(figures) for figures in zip(*((o.live, o.slots) for o in node.offers.values()), strict=True))
    return Check(CheckName.ROOM, False, f"it works on {live} at once, of {slots}", Reason.FULL, _NEXT[State.BUSY])


def _demand(roster: Roster, node: Node, now: float) -> Check:
    served = ((roster.served(model), model) for model in node.offers)
    asked = [(one.asked_at, model) for one, model in served if one is not None and one.asked_at is not None]
    last, model = max(asked, default=(None, ""))
    if last is not None and now - last <= DEMAND_SECONDS_MAX:
        return Check(CheckName.DEMAND, True, f"somebody asked for '{model}' {now - last:.0f} s ago")
    when = "since the coordinator started" if last is None else f"for {(now - last) / 3600:.1f} hours"
    remedy = "Nothing is wrong with it. A model that callers want brings requests: GET /v1/models lists all."
    return Check(CheckName.DEMAND, False, f"nobody has asked for {_listed(sorted(node.offers))} {when}", None, remedy)


def _listed(them: list[EngineReport] | list[str]) -> str:
    words = [f"'{one}'" if isinstance(one, str) else _about(one) for one in them[:LISTED_MAX]]
    more = len(them) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _about(engine: EngineReport) -> str:
    done = f" ({engine.progress:.0%})" if engine.progress is not None else ""
    why = f": {_short(engine.status.reason)}" if engine.status.reason else ""
    return f"'{engine.model}' is {engine.status.state}{done}{why}"


def _short(text: str) -> str:
    return text[:TEXT_LENGTH_MAX]
