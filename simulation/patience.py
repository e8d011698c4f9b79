"""Who waits for what, and for how long: looked at after every tick."""

from __future__ import annotations

from collections.abc import Mapping

from shrk_coordinator.state.coordinator import QUIET_SECONDS_MAX, CoordinatorState
from shrk_coordinator.state.request import ATTEMPTS_MAX, FAILURES_MAX, Phase
from shrk_coordinator.state.stall import STALL_SECONDS_MAX
from shrk_coordinator.state.waiting import SUSPECTS_SECONDS_MAX, WAIT_SECONDS_MAX
from simulation.agent import HANDOVER_SECONDS_MIN
from simulation.asks import Kind
from simulation.chances import KNOWN_SECONDS, Chances
from simulation.site import Site
from simulation.story import Story, Try

#: After so long an attempt is moved from a node of which nothing is heard, and from one whose stream has stalled: the
#: product's own limits, and some ticks.
UNHEARD_SECONDS = QUIET_SECONDS_MAX + 1.0
_UNSPOKEN_SECONDS = STALL_SECONDS_MAX + 1.0
#: And so long before its node stops; one that is given no time waits some seconds all the same.
_LEAVES_SECONDS = HANDOVER_SECONDS_MIN - 1.0


class Patience:
    """Of one run."""

    def __init__(self, state: CoordinatorState, sites: Mapping[str, Site], chances: Chances) -> None:
        self._state = state
        self._sites = sites
        self._chances = chances

    def with_line(self, story: Story, now: float) -> None:
        """Nobody waits for longer than a request may, nor while a node that is well has room."""
        assert story.waits_since is not None, f"{story.name} waits, and is asked of a node"
        waited = now - story.waits_since
        most = SUSPECTS_SECONDS_MAX if self._chances.was_suspect(story) else WAIT_SECONDS_MAX
        assert waited < most, f"{story.name} waits for {waited:.1f} s"
        if waited > KNOWN_SECONDS:
            site = self._chances.somebody(story, now)
            assert site is None, f"{story.name} waits, and {site and site.node_id} is well and has room"

    def with_node(self, current: Try, now: float) -> None:
        """Nobody waits for a node that says nothing or is about to stop, while another is well."""
        story, attempt = current.story, self._state.attempts.by_stream[current.stream]
        node = self._state.roster.nodes[current.site.node_id]
        silent = now - max(node.heard_at, current.begun_at) > UNHEARD_SECONDS
        # Without credit it is the caller who is slow.
        if not story.ask.padding and current.spoke_at is not None and story.ask.kind is Kind.STREAMED:
            silent = silent or now - current.spoke_at > _UNSPOKEN_SECONDS
        if not (silent or current.site.leaving(_LEAVES_SECONDS)) or attempt.phase is Phase.CLOSING:
            return
        if self._chances.suspects(story, now):
            return  # It may be what is wrong there.
        if story.attempts >= ATTEMPTS_MAX or story.failures >= FAILURES_MAX - 1:
            return
        for site in self._sites.values():
            well = site is not current.site and site.calm(now - _UNSPOKEN_SECONDS)
            if well and self._chances.could(site, story, now, elsewhere=True):
                raise AssertionError(f"{story.name} waits for {node.node_id}, and {site.node_id} is well")
