"""A probe: one token asked of one node, on its owner's behalf, to see whether one comes.

It is an attempt as any other as far as the node is concerned: its token closes a breaker, its failure counts. But it
is asked once, of that node alone; it never waits, is never hedged or moved, takes nothing from the budgets of callers,
is no sign that somebody wants the model, and says nothing about how long answers take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shrk_contract.terms import PROBE_SECONDS_MAX, Endpoint
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.asking import Asking
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.placement import Placed, Reason, Wish, why_not
from shrk_coordinator.state.request import Request
from shrk_coordinator.state.roster import Node, Roster
from shrk_coordinator.state.verdict import CheckName, judge

#: How a token is asked for, the first that the engine answers: a chat, a completion, or the numbers of an embedding.
ASKED_BY = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)

#: Which line of the checklist explains why a node is not asked.
_EXPLAINED_BY: Mapping[str, CheckName] = {
    Reason.DRAINING: CheckName.TAKES_WORK,
    Reason.CLOSING: CheckName.HOURS,
    Reason.HOT: CheckName.TEMPERATURE,
    Reason.EJECTED: CheckName.TRUSTED,
    Reason.UNWELL: CheckName.TRUSTED,
}
#: The same where the checklist has no line for it: said of the node, and what its owner can do.
_PLAIN: Mapping[str, tuple[str, str]] = {
    Reason.FULL: ("it is busy, its queue too, or has just said so", "Nothing is wrong. Try again in a few seconds."),
    Reason.REJECTED: (
        "its own agent did not take the probe: by the owner's terms, or since it is busy",
        "See what the agent says: shrk status",
    ),
    Reason.ENDPOINT: ("the model answers nothing that a probe can ask", "Name another model: shrk doctor --model NAME"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a probe asks."""

    model: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Why a node cannot be asked for a token now, and what its owner can do; for people."""

    reason: str
    next_action: str


@dataclass(frozen=True, slots=True)
class Probed:
    """How a probe ended."""

    passed: bool
    #: Why it did not pass, and what to do, for people.
    reason: str = ""
    next_action: str = ""
    #: Which model was asked; empty where none was.
    model: str = ""
    #: From the question to the first token; 0 where none came.
    first_token_ms: int = 0


class Probing:
    """Places probes."""

    def __init__(self, roster: Roster, asking: Asking) -> None:
        self._roster = roster
        self._asking = asking

    def arrived(self, event: seen.ProbeArrived) -> list[Effect]:
        """Ask the node, or tell why it is not asked."""
        now, model = event.now, event.model
        node = self._roster.nodes.get(event.node_id)
        offer = node.offers.get(model) if node is not None else None
        if node is None or offer is None:
            return [do.RefuseRequest(event.request_id, do.NoNode(model, ()))]
        # It may wait in the engine's own queue: whether its node is busy is not what the owner asks.
        wish = Wish(model, event.endpoint, now, queues=True, probes=True)
        if reason := why_not(node, offer, wish):
            return [do.RefuseRequest(event.request_id, do.NoNode(model, ((str(reason), 1),)))]
        request = Request(
            request_id=event.request_id,
            model=model,
            endpoint=event.endpoint,
            streaming=False,
            deadline=now + PROBE_SECONDS_MAX,
            probe=True,
        )
        self._asking.attempts.open(request)
        arrived = seen.RequestArrived(now, event.request_id, model, event.endpoint, streaming=False)
        self._asking.journal.arrived(arrived)
        return [self._asking.begin(now, request, (Placed(node, offer), None), "")]


def target(roster: Roster, node_id: NodeId, model: str, now: float) -> Target | NotAsked:
    """What to ask a node, or why there is nothing to ask. `model` may be empty: one that it serves, the first by name
    of those that could be asked now. `now`: monotonic seconds."""
    node = roster.nodes.get(node_id)
    if node is None or node.link is None:
        return NotAsked("the coordinator has no link to this node", "See why: shrk netcheck")
    if model and model not in node.offers:
        engines = node.report.engines if node.report else ()
        if all(engine.model != model for engine in engines):
            served = ", ".join(f"'{name}'" for name in sorted(node.offers)) or "none"
            return NotAsked(f"it does not have '{model}' among its models; it serves {served}", "Name one of those.")
        return _not_serving(roster, node, now)
    able = [
        (name, asked) for name in sorted(node.offers) if (not model or name == model) and (asked := _way(node, name))
    ]
    if not able:
        return NotAsked(*_PLAIN[Reason.ENDPOINT]) if node.offers else _not_serving(roster, node, now)
    open_now = [
        (name, asked) for name, asked in able if why_not(node, node.offers[name], Wish(name, asked, now)) is None
    ]
    return Target(*(open_now or able)[0])


def _not_serving(roster: Roster, node: Node, now: float) -> NotAsked:
    """What the node is instead; of one that serves other models, what became of this one."""
    verdict = judge(roster, node, now)
    if not node.offers and verdict.reason:
        return NotAsked(verdict.reason, verdict.next_action)
    wait = NotAsked("it does not serve the model now", "Wait until it is loaded: shrk status")
    return _of_check(roster, node, now, CheckName.MODELS) or wait


def _way(node: Node, model: str) -> Endpoint | None:
    endpoints = node.offers[model].engine.endpoints
    return next((endpoint for endpoint in ASKED_BY if endpoint in endpoints), None)


def explained(roster: Roster, node_id: NodeId, reason: str, now: float) -> NotAsked:
    """A reason of placement in the words of the checklist, where it has a line for it. `now`: monotonic seconds."""
    node = roster.nodes.get(node_id)
    if node is None or node.link is None:
        return NotAsked("the coordinator has lost its link to this node", "See why: shrk netcheck")
    check = _EXPLAINED_BY.get(reason, CheckName.MODELS)
    found = _of_check(roster, node, now, check) if reason not in _PLAIN else None
    plain = _PLAIN.get(reason, ("it cannot be asked now", "See why: shrk why"))
    return found or NotAsked(*plain)


def _of_check(roster: Roster, node: Node, now: float, name: CheckName) -> NotAsked | None:
    """What the checklist says there; None where it finds nothing wrong."""
    for check in judge(roster, node, now).checks:
        if check.name is name and not check.passed:
            return NotAsked(check.reason, check.next_action)
    return None
