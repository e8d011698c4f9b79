"""Builders for facts: reports, nodes and requests with everything filled in that a test does not care about."""

from __future__ import annotations

import itertools

from shrk_contract.terms import Endpoint, EngineReport, Host, Report, State, Status
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState

CHAT = Endpoint.CHAT_COMPLETIONS
_links = itertools.count(1)
_requests = itertools.count(1)


def a_report(
    *models: str, state: State = State.ONLINE, slots: int = 4, endpoints: tuple[Endpoint, ...] = (CHAT,)
) -> Report:
    """A node's report with one engine for each model."""
    engines = tuple(EngineReport(id=m, model=m, status=Status(state), endpoints=endpoints, slots=slots) for m in models)
    return Report(host=Host("host"), status=Status(state), engines=engines)


def link_node(
    state: CoordinatorState, node_id: str, *models: str, now: float = 0.0, incarnation: int = 1, slots: int = 4
) -> int:
    """Link a node that serves these models; the link's id."""
    link = next(_links)
    state.handle(seen.NodeHello(now, node_id, link, incarnation, owner=f"owner-of-{node_id}"))
    state.handle(seen.NodeReported(now, node_id, link, a_report(*models, slots=slots)))
    return link


def ask(
    state: CoordinatorState, model: str = "m", now: float = 0.0, streaming: bool = True, endpoint: Endpoint = CHAT
) -> tuple[bytes, list[do.Effect]]:
    """A caller asks; the request's id and what follows."""
    request_id = next(_requests).to_bytes(16, "big")
    return request_id, list(state.handle(seen.RequestArrived(now, request_id, model, endpoint, streaming)))


def only_start(effects: list[do.Effect]) -> do.StartAttempt:
    """The one attempt that these effects start."""
    [start] = [e for e in effects if isinstance(e, do.StartAttempt)]
    return start
