"""Who could take a request now: what the judge asks when one was given up, or waits."""

from __future__ import annotations

from collections.abc import Mapping

from shrk_coordinator.state.continuation import LEFT_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import StreamId
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from simulation.deaths import Deaths
from simulation.site import Site
from simulation.standings import Standings
from simulation.story import Story, Try

#: A node that has been well for so long is one that must be found: its report has come, and a tick has passed.
KNOWN_SECONDS = 0.5


class Chances:
    """Of all nodes that are well."""

    def __init__(
        self,
        state: CoordinatorState,
        sites: Mapping[str, Site],
        tries: Mapping[StreamId, Try],
        standings: Standings,
        deaths: Deaths,
    ) -> None:
        self._state = state
        self._sites = sites
        #: Attempts under way.
        self._tries = tries
        self._standings = standings
        self._deaths = deaths
        #: Attempts that begin with the present event: those who waited for them did so until now.
        self.starting = 0
        #: The longest that an answer has taken, by model.
        self._longest: dict[str, float] = {}

    def answered(self, attempt: Try, now: float) -> None:
        """An answer is whole."""
        model, took = attempt.story.ask.model, now - attempt.begun_at
        self._longest[model] = max(took, self._longest.get(model, 0.0))

    def somebody(self, story: Story, now: float, *, full: bool = False) -> Site | None:
        """A node that has been well for a while and could take it; `full`: had it room."""
        for site in self._sites.values():
            if site.calm(now - KNOWN_SECONDS) and self.could(site, story, now, full=full):
                return site
        return None

    def could(self, site: Site, story: Story, now: float, *, full: bool = False, elsewhere: bool = False) -> bool:
        """Whether a node that is well could take it. `elsewhere`: while another still has it."""
        node = self._state.roster.nodes[site.node_id]
        offer = node.offers.get(story.ask.model)
        if offer is None or offer.life in story.failed_on:
            return False
        left = story.left.get(offer.life)
        if left is not None and (elsewhere or now - left <= LEFT_SECONDS + KNOWN_SECONDS):
            return False
        breaker = offer.standing.breaker
        if not breaker.allows(now):
            self._standings.justify((site.node_id, story.ask.model), breaker, now)
            if elsewhere or not (breaker.stalled or story.pins):
                return False
        if not (full or offer.has_room(queues=bool(story.pins))) or now - KNOWN_SECONDS < offer.standing.busy_until:
            return False
        if story.pins and story.pins != {offer.engine.pin}:
            return False
        return self._may_be_tried(site, story, now)

    def _may_be_tried(self, site: Site, story: Story, now: float) -> bool:
        """Of what has crashed an engine, one runs at a time, and elsewhere."""
        blamed = () if story.pins else self._deaths.nodes(story, now)
        if not blamed:
            return True
        others = self.offering(story.ask.model) > set(blamed)
        if others and site.node_id in blamed:
            return False
        return site.node_id not in self._deaths.reading(self._tries.values(), now)

    def shut_for(self, model: str, now: float) -> float:
        """Until some node that offers it may be tried again, in seconds."""
        breakers = [offer.standing.breaker for _, offer in self._state.roster.offers(model)]
        return min(0.0 if breaker.allows(now) else breaker.open_until - now for breaker in breakers)

    def was_suspect(self, story: Story) -> bool:
        """Whether an engine has ever crashed of it."""
        return self._deaths.ever(story)

    def suspects(self, story: Story, now: float) -> bool:
        """Whether an engine has crashed of it."""
        return bool(self._deaths.nodes(story, now))

    def offering(self, model: str) -> set[str]:
        """The nodes that offer a model."""
        served = self._state.roster.served(model)
        return set(served.offers) if served is not None else set()

    def line_is_full(self, story: Story) -> bool:
        """Whether as many wait for its model as may."""
        return self._state.attempts.waiting.new(story.ask.model) + self.starting >= WAITING_MAX

    def waits_in_vain(self, story: Story) -> bool:
        """Whether it could not be served in time, were all answers as long as the longest has been."""
        model = story.ask.model
        served = self._state.roster.served(model)
        offers = served.offers.values() if served is not None else ()
        slots = sum(offer.slots for offer in offers if offer.standing.breaker.closed)
        ahead = self._state.attempts.waiting.new(model) + self.starting
        return (ahead + 1) * self._longest.get(model, 0.0) > WAIT_SECONDS_MAX * slots
