"""`GET /v1/nodes`: who serves, in which state, and why; everything for admins, no more than pseudonyms for callers.

A node has one name everywhere: its pseudonym is the `id` here, in `x-shiver-node` and in `GET /v1/requests/{id}`.
Times are unix seconds.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from shrk_contract.terms import SERVING, Device, EngineReport, Pin, Report, State
from shrk_coordinator.errors import invalid_value, model_not_found, node_not_found, unknown_parameter
from shrk_coordinator.records import ApiKey, Scope
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.placement import Wish, why_not
from shrk_coordinator.state.roster import Node
from shrk_coordinator.state.served import Offer
from shrk_coordinator.state.verdict import TEXT_LENGTH_MAX, breaker_state, judge, since_of, state_of
from shrk_coordinator.streams import NodeNames

#: Nodes in one answer: about 2 KB each for an admin, and the most together 30 ms of everybody's time.
LIMIT_DEFAULT = 100
LIMIT_MAX = 500
#: What a list can be asked for with.
PARAMETERS = ("model", "state", "limit", "after")


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment: monotonic seconds, as the state counts them, and the same since 1970."""

    now: float
    unix: float

    def of(self, then: float) -> float:
        """A monotonic time in unix seconds."""
        return round(self.unix - (self.now - then), 3)


def listing(
    state: CoordinatorState, query: Mapping[str, str], key: ApiKey, moment: Moment, node_name: NodeNames
) -> dict[str, Any]:
    """One page of nodes, by id. `query`: of PARAMETERS, each once. Raises ApiError."""
    _check_parameters([name for name, _ in query.items()])
    wanted = _wanted_state(query.get("state"))
    model = query.get("model")
    if model is not None and not state.roster.knows(model):
        raise model_not_found(model, state.roster.nearest(model))
    limit, after = _limit(query.get("limit")), query.get("after", "")
    named = (
        (name, node)
        for node in state.roster.nodes.values()
        if (name := node_name(node.node_id)) > after
        and (wanted is None or state_of(node) is wanted)
        and (model is None or _has(node, model))
    )
    found = heapq.nsmallest(limit + 1, named, key=itemgetter(0))
    page = [_document(state, name, node, key, moment) for name, node in found[:limit]]
    return {
        "object": "list",
        "data": page,
        "has_more": len(found) > limit,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def one(state: CoordinatorState, name: str, key: ApiKey, moment: Moment, node_name: NodeNames) -> dict[str, Any]:
    """One node by its id; admins may use its node id as well. Raises ApiError."""
    for node in state.roster.nodes.values():
        pseudonym = node_name(node.node_id)
        if name == pseudonym or (key.scope is Scope.ADMIN and name == node.node_id):
            return _document(state, pseudonym, node, key, moment)
    raise node_not_found(name)


def _check_parameters(names: Sequence[str]) -> None:
    """Whether each is known, and told once. Raises ApiError."""
    for name in names:
        if name not in PARAMETERS:
            raise unknown_parameter(name, PARAMETERS)
        if names.count(name) > 1:
            raise invalid_value(name, "told once")


def _wanted_state(text: str | None) -> State | None:
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        near = difflib.get_close_matches(text[:TEXT_LENGTH_MAX].lower(), list(State), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise invalid_value("state", f"one of {', '.join(State)}{hint}") from None


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LIMIT_MAX)) and 1 <= int(text) <= LIMIT_MAX):
        raise invalid_value("limit", f"a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _has(node: Node, model: str) -> bool:
    return any(name == model for name, _ in _models(node))


def _models(node: Node) -> list[tuple[str, State]]:
    """What a node can serve, each in which state; of one that is away, what it served last.

    A model at which requests fail is quarantined, whatever its node says of it.
    """
    if node.link is None:
        return [(model, State.OFFLINE) for model in sorted(node.lost_models)]
    return [(engine.model, _state(node, engine)) for engine in node.report.engines] if node.report else []


def _state(node: Node, engine: EngineReport) -> State:
    offer, state = node.offers.get(engine.model), engine.status.state
    fails = offer is not None and not offer.standing.breaker.closed
    return State.QUARANTINED if fails and state in SERVING else state


def _document(state: CoordinatorState, name: str, node: Node, key: ApiKey, moment: Moment) -> dict[str, Any]:
    its_state = state_of(node)
    document = {
        "id": name,
        "object": "node",
        "state": its_state,
        "since": moment.of(since_of(node, its_state)),
        "models": [{"id": model, "state": model_state} for model, model_state in _models(node)],
    }
    return document | _for_admins(state, node, moment) if key.scope is Scope.ADMIN else document


def _for_admins(state: CoordinatorState, node: Node, moment: Moment) -> dict[str, Any]:
    verdict = judge(state.roster, node, moment.now)
    in_flight = state.attempts.by_engine(node.link)
    assigned = state.assigning.assigned(node.node_id)
    report = node.report
    return {
        "node_id": node.node_id,
        "name": node.name,
        "owner": node.owner,
        "address": node.address or None,
        "agent_version": node.agent_version,
        "reason": verdict.reason,
        "next_action": verdict.next_action,
        "linked_at": moment.of(node.linked_at) if node.link is not None else None,
        "heard_at": moment.of(node.heard_at),
        "in_flight": in_flight.total(),
        "checks": [
            {
                "check": check.name,
                "passed": check.passed,
                "word": check.word,
                "reason": check.reason,
                "next_action": check.next_action,
            }
            for check in verdict.checks
        ],
        "terms": _terms(report) if report else None,
        "devices": [{name: getattr(device, name) for name in Device.__slots__} for device in report.devices]
        if report
        else [],
        "engines": [
            # Whether it should be loaded there.
            {**_engine(state, node, engine, in_flight[engine.id], moment), "assigned": engine.model in assigned}
            for engine in (report.engines if report else ())
        ],
    }


def _terms(report: Report) -> dict[str, Any]:
    terms = report.terms
    return {
        "temperature_celsius_max": terms.temperature_celsius_max or None,
        "schedule": terms.schedule[:TEXT_LENGTH_MAX],
        "time_zone": terms.time_zone[:TEXT_LENGTH_MAX],
        "models": list(terms.models),
        "closes_in_seconds": terms.closes_in_seconds,
        "kept_back": terms.kept_back[:TEXT_LENGTH_MAX],
        # For models, all together; None: no bound is told.
        "memory_bytes": terms.memory_bytes or None,
        "scales_to_zero": terms.scales_to_zero,
    }


def _engine(
    state: CoordinatorState, node: Node, engine: EngineReport, in_flight: int, moment: Moment
) -> dict[str, Any]:
    status = engine.status
    offer = node.offers.get(engine.model)
    offered = offer is not None and offer.engine.id == engine.id
    return {
        "id": engine.id,
        "model": engine.model,
        "state": status.state,
        "reason": status.reason[:TEXT_LENGTH_MAX],
        "next_action": status.next_action[:TEXT_LENGTH_MAX],
        # By the node's own clock.
        "since": status.since_unix_ms / 1000 or None,
        "progress": engine.progress,
        "life": engine.life,
        "slots": engine.slots,
        "running": engine.running,
        "waiting": engine.waiting,
        "context": engine.context_tokens,
        "memory_bytes": engine.memory_bytes or None,
        "why_not_assigned": state.assigning.why_not_there(moment.now, engine.model, node.node_id) or None,
        "endpoints": sorted(engine.endpoints),
        "pin": {name: text for name in Pin.__slots__ if (text := getattr(engine.pin, name))},
        "in_flight": in_flight,
        "why_not": _why_not(node, offer, moment) if offer is not None and offered else status.state,
        "breaker": _breaker(offer, moment) if offer is not None else None,
        "speed": _speed(state, offer, moment) if offer is not None else None,
    }


def _why_not(node: Node, offer: Offer, moment: Moment) -> str | None:
    """Why the next request for what it serves would not be sent there; None where it might be."""
    endpoints = offer.engine.endpoints
    if not endpoints:
        return None
    wish = Wish(offer.engine.model, endpoints[0], moment.now, well=True)
    return why_not(node, offer, wish)


def _breaker(offer: Offer, moment: Moment) -> dict[str, Any]:
    breaker, failure = offer.standing.breaker, offer.standing.last_failure
    return {
        "state": breaker_state(breaker, moment.now),
        "failures": breaker.failures,
        "stalled": breaker.stalled,
        "opened_at": None if breaker.closed else moment.of(breaker.opened_at),
        "open_until": None if breaker.closed else moment.of(breaker.open_until),
        "last_failure": {"code": failure.code, "message": failure.message} if failure is not None else None,
    }


def _speed(state: CoordinatorState, offer: Offer, moment: Moment) -> dict[str, Any]:
    speed, served = offer.standing.speed, state.roster.served(offer.engine.model)
    if served is None or served.usual.seconds is None:
        return {"expected_seconds": None, "first_token_seconds": None}
    first = speed.first_token_seconds(served.usual)
    return {
        "expected_seconds": round(speed.expected(moment.now, served.usual), 3),
        "first_token_seconds": None if first is None else round(first, 3),
    }
