"""At the end of a run: nothing is left of anything, on either side."""

from __future__ import annotations

from collections.abc import Iterable

from shrk_coordinator.data_plane.held import HELD_BYTES_MAX
from simulation.coordinator import Coordinator
from simulation.site import Site


def nothing_remains(coordinator: Coordinator, sites: Iterable[Site]) -> None:
    """No request, attempt, frame, place or byte is kept. Raises AssertionError."""
    sites = list(sites)
    state, links = coordinator.driver.state, coordinator.links.all()
    attempts = state.attempts
    left = (attempts.requests, attempts.by_stream, attempts.waiting, attempts.links())
    assert not any(left), f"the coordinator has not forgotten {left}"
    assert len(links) == len(sites), f"{len(links)} links of {len(sites)} nodes"
    for link in links:
        assert not link.sinks, f"a link still takes frames of {list(link.sinks)}"
    for node in state.roster.nodes.values():
        for offer in node.offers.values():
            assert not offer.in_flight, f"{node.node_id} counts {offer.in_flight} in flight for ever"
            assert offer.standing.breaker.probed_at is None, f"{node.node_id} is probed for ever"
    for site in sites:
        _nothing_remains_at(site)
    assert coordinator.held.take(HELD_BYTES_MAX), "memory held for callers was not given back"


def _nothing_remains_at(site: Site) -> None:
    assert site.agent is not None, "every node is up at the end"
    state, session = site.agent.state, site.agent.dialling.session
    assert not state.attempts, f"{site.node_id} has not forgotten {len(state.attempts)} attempts"
    for view in state.engines.values():
        assert not view.in_flight, f"{site.node_id}: {view.id} counts {view.in_flight} in flight for ever"
    assert session is not None, f"{site.node_id} has no link"
    assert not session.open_attempts(), f"{site.node_id} keeps sinks for ever"
