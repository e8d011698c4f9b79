"""Builders for facts: reports, nodes and requests with everything filled in that a test does not care about."""

from __future__ import annotations

import itertools
import random

from shrk_contract.terms import Endpoint, EngineReport, Fault, Host, Pin, Report, State, Status
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail

CHAT = Endpoint.CHAT_COMPLETIONS
#: Two kinds of engine: what one began, only one of its own kind goes on with by ids.
PIN = Pin(engine="sim", model_revision="1")
OTHER_PIN = Pin(engine="sim", model_revision="2")
#: For placement, which draws only where nodes are many.
DICE = random.Random(1)
_links = itertools.count(1)
_requests = itertools.count(1)


def new_link() -> int:
    """The id of a link that has not been there before."""
    return next(_links)


def a_report(
    *models: str,
    state: State = State.ONLINE,
    slots: int = 4,
    endpoints: tuple[Endpoint, ...] = (CHAT,),
    pin: Pin | None = None,
    life: int = 0,
) -> Report:
    """A node's report with one engine for each model."""
    engines = tuple(
        EngineReport(id=m, model=m, status=Status(state), endpoints=endpoints, slots=slots, pin=pin or Pin(), life=life)
        for m in models
    )
    return Report(host=Host("host"), status=Status(state), engines=engines)


def link_node(
    state: CoordinatorState,
    node_id: str,
    *models: str,
    now: float = 0.0,
    incarnation: int = 1,
    slots: int = 4,
    pin: Pin | None = None,
    endpoints: tuple[Endpoint, ...] = (CHAT,),
) -> int:
    """Link a node that serves these models; the link's id."""
    link = new_link()
    state.handle(seen.NodeHello(now, node_id, link, incarnation, owner=f"owner-of-{node_id}"))
    report = a_report(*models, slots=slots, pin=pin, endpoints=endpoints)
    state.handle(seen.NodeReported(now, node_id, link, report))
    return link


def ask(
    state: CoordinatorState,
    model: str = "m",
    now: float = 0.0,
    streaming: bool = True,
    endpoint: Endpoint = CHAT,
    by_ids: bool = False,
) -> tuple[bytes, list[do.Effect]]:
    """A caller asks; the request's id and what follows."""
    request_id = next(_requests).to_bytes(16, "big")
    arrived = seen.RequestArrived(now, request_id, model, endpoint, streaming, by_ids, key_id="key")
    return request_id, list(state.handle(arrived))


def only_start(effects: list[do.Effect]) -> do.StartAttempt:
    """The one attempt that these effects start."""
    [start] = [e for e in effects if isinstance(e, do.StartAttempt)]
    return start


def begun(state: CoordinatorState, now: float = 0.0, by_ids: bool = True) -> do.StartAttempt:
    """A streamed request whose first token has reached its caller; its attempt."""
    start = only_start(ask(state, now=now, by_ids=by_ids)[1])
    state.handle(seen.AttemptAccepted(now, start.stream))
    state.handle(seen.FirstPieceDelivered(now, start.stream))
    return start


def a_failure(code: str = "engine_lost", fault: Fault = Fault.ENGINE) -> FailureDetail:
    """What a node says when an attempt ends badly."""
    return FailureDetail(fault, f"it ended with {code}", code=code)


def lose(state: CoordinatorState, start: do.StartAttempt, now: float = 0.0) -> list[do.Effect]:
    """The link of an attempt's node is cut; what follows."""
    return list(state.handle(seen.LinkClosed(now, start.node_id, start.link, "cut")))


def fail(
    state: CoordinatorState, start: do.StartAttempt, code: str = "engine_lost", now: float = 0.0
) -> list[do.Effect]:
    """An attempt ends badly; what follows."""
    return list(state.handle(seen.AttemptFailed(now, start.stream, a_failure(code))))
