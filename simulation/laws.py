"""What must hold, looked at with every event of the coordinator, at every tick and at the end.

The judge knows what the coordinator cannot: which nodes are well, what each request was told by whom, and what every
token had to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, Pin
from shrk_coordinator.data_plane.held import HELD_BYTES_MAX
from shrk_coordinator.driver import LAG_SECONDS_MAX
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.attempts import ATTEMPTS_MAX, FAILURES_MAX, WAIT_SECONDS_MAX, Phase, Request
from shrk_coordinator.state.continuation import LEFT_SECONDS, LOSSES
from shrk_coordinator.state.coordinator import QUIET_SECONDS_MAX
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, RequestId, StreamId
from shrk_coordinator.state.roster import EngineLife, Offer
from shrk_coordinator.state.stall import STALL_SECONDS_MAX
from simulation.agent import HANDOVER_SECONDS_MIN
from simulation.asks import Ask, Kind
from simulation.coordinator import Coordinator
from simulation.reader import Ending
from simulation.site import Site

#: After so long an attempt is moved from a node of which nothing is heard, and from one whose stream has stalled: the
#: product's own limits, and some ticks.
_UNHEARD_SECONDS = QUIET_SECONDS_MAX + 1.0
_UNSPOKEN_SECONDS = STALL_SECONDS_MAX + 1.0
#: And so long before its node stops; one that is given no time waits some seconds all the same.
_LEAVES_SECONDS = HANDOVER_SECONDS_MIN - 1.0
#: A node that has been well for so long is one that must be found: its report has come, and a tick has passed.
KNOWN_SECONDS = 0.5


@dataclass(slots=True)
class Try:
    """One attempt, as the judge sees it."""

    stream: StreamId
    #: As it was when the attempt began.
    life: EngineLife
    pin: Pin
    offer: Offer
    site: Site
    begun_at: float
    #: When a piece of it was last accepted.
    spoke_at: float | None = None


@dataclass(slots=True)
class Story:
    """One request, as the judge sees it."""

    ask: Ask
    arrived_at: float
    #: Once the coordinator has heard of it.
    request: Request | None = None
    current: Try | None = None
    #: What the delivered part was generated with.
    pins: set[Pin] = field(default_factory=set)
    #: When it last lost an attempt; the engines that failed it, and when it left others that may yet be well.
    lost_at: float = 0.0
    failed_on: set[EngineLife] = field(default_factory=set)
    left: dict[EngineLife, float] = field(default_factory=dict)
    #: The coordinator has said that it ends, and how; what came of it for the caller.
    over: bool = False
    due: Ending = Ending.LEFT
    ending: Ending | None = None
    error: str = ""


class Laws:
    """One run's judge."""

    def __init__(self, coordinator: Coordinator, sites: Mapping[str, Site], hardware: Mapping[Pin, int]) -> None:
        self.stories: dict[RequestId, Story] = {}
        self._coordinator = coordinator
        self._state = coordinator.driver.state
        self._sites = sites
        self._hardware = hardware
        #: Of every attempt ever begun.
        self._pins: dict[StreamId, Pin] = {}
        self._by_stream: dict[StreamId, Story] = {}
        #: When the coordinator was last so late that it could not tell who was silent.
        self._late_at = 0.0

    @property
    def _now(self) -> float:
        return self._coordinator.world.clock.now

    def hardware_of(self, stream: StreamId) -> int:
        """The kind of hardware that an attempt runs on."""
        return self._hardware[self._pins[stream]]

    # --- with every event ---------------------------------------------------------------------------

    def asked(self, ask: Ask) -> None:
        """A caller is about to ask."""
        self.stories[ask.request_id] = Story(ask, self._now)

    def answered(self, ask: Ask, ending: Ending, error: str, usage_told: bool) -> None:
        """A caller has its answer, or an error, or is gone."""
        story = self.stories[ask.request_id]
        assert story.ending is None, f"{_name(story)} ended twice: {story.ending.value}, then {ending.value}"
        story.ending, story.error = ending, error
        assert story.over, f"{_name(story)} has ended and is not forgotten"
        if ending is not Ending.LEFT:
            assert ending is story.due, f"{_name(story)} was to end {story.due.value} and ended {ending.value}"
        if ending is Ending.FINISHED and ask.include_usage and ask.kind is not Kind.WHOLE:
            assert usage_told, f"{_name(story)} was not told its usage"

    def accepted(self, request_id: RequestId, stream: StreamId) -> None:
        """A relay has accepted a piece that names this stream."""
        story = self.stories[request_id]
        current = story.current.stream if story.current else None
        assert current == stream, f"{_name(story)}: a frame of stream {stream} was accepted, and {current} is current"
        if story.current is not None:
            story.current.spoke_at = self._now
            if story.ask.kind is Kind.STREAMED:
                story.pins.add(story.current.pin)

    def handled(self, event: Event, effects: list[Effect]) -> None:
        """The coordinator's state has taken in an event."""
        if isinstance(event, seen.RequestArrived):
            self.stories[event.request_id].request = self._state.attempts.requests.get(event.request_id)
        elif isinstance(event, seen.CallerLeft):
            # The last word on every request; usually it has been ended before.
            self.stories[event.request_id].over = True
        for effect in effects:
            match effect:
                case do.StartAttempt():
                    self._began(effect)
                case do.ReleaseStream(stream, _) | do.CancelAttempt(stream, _, _):
                    self._ended(stream, event, do.ReleaseStream(effect.stream, effect.link) not in effects)
                case do.RefuseRequest(request_id):
                    self._refused(self._end(request_id, Ending.ERROR), effect)
                case do.FailRequest(request_id, failure):
                    self._failed(self._end(request_id, Ending.ERROR), failure)
                case do.CompleteRequest(request_id):
                    self._end(request_id, Ending.FINISHED)
                case _:
                    pass
        if effects:
            self._look_at_loads()

    def _end(self, request_id: RequestId, due: Ending) -> Story:
        story = self.stories[request_id]
        assert not story.over, f"{_name(story)} was ended twice"
        story.over, story.due = True, due
        return story

    def _began(self, effect: do.StartAttempt) -> None:
        story = self.stories[effect.request_id]
        request = story.request
        assert request is not None, f"{_name(story)} is asked of a node before it came"
        assert story.current is None, f"{_name(story)} has two attempts at once"
        assert not story.over, f"{_name(story)} goes on behind its end"
        assert effect.attempt <= ATTEMPTS_MAX, f"{_name(story)} is asked for the {effect.attempt}th time"
        assert (effect.resume is None) is not request.delivered, f"{_name(story)} goes on from what was not delivered"
        offer = self._state.roster.nodes[effect.node_id].offers[request.model]
        assert offer.life not in story.failed_on, f"{_name(story)} is asked again of what has failed it"
        site, pin = self._sites[effect.node_id], offer.engine.pin
        story.current = Try(effect.stream, offer.life, pin, offer, site, self._now)
        self._by_stream[effect.stream] = story
        self._pins[effect.stream] = pin

    def _ended(self, stream: StreamId, event: Event, moved: bool) -> None:
        story = self._by_stream.pop(stream, None)
        if story is None:
            assert stream in self._pins, "what was never begun has ended"
            return  # Cancelled and then released, by one event.
        attempt, story.current = story.current, None
        assert attempt is not None, f"{_name(story)}: an attempt ended twice"
        if isinstance(event, seen.AttemptFinished):
            self._end(story.ask.request_id, Ending.FINISHED)
        elif not isinstance(event, seen.CallerLeft):
            moved = moved or isinstance(event, seen.AttemptRejected)
            self._lost(story, attempt, event, moved)

    def _lost(self, story: Story, lost: Try, event: Event, moved: bool) -> None:
        """An attempt came to nothing, or was moved from a node that may be well again: was the node at fault?"""
        story.lost_at = self._now
        if moved:
            story.left[lost.life] = self._now
        if isinstance(event, seen.AttemptFailed | seen.AttemptBroken):
            failure = event.failure
            if failure.fault is Fault.CALLER and story.ask.bad:
                return
            if failure.code == CANNOT_RESUME and not self._continues_by_ids(lost):
                return
            if failure.code == DIVERGED and story.pins != {lost.pin}:
                story.failed_on.add(lost.life)
                return
        if not moved:
            story.failed_on.add(lost.life)
        assert not lost.site.calm(lost.begun_at), f"{_name(story)} lost an attempt on a node that is well: {event}"

    def _continues_by_ids(self, attempt: Try) -> bool:
        kinds = attempt.site.kinds
        return next(k.continues_by_ids for k in kinds if k.id == attempt.offer.engine.id)

    def _refused(self, story: Story, effect: do.RefuseRequest) -> None:
        match effect.why:
            case do.NoNode() | do.UnknownModel():
                self._nobody_could(story)
            case do.WrongEndpoint():
                raise AssertionError(f"{_name(story)} was told of another endpoint")

    def _failed(self, story: Story, failure: seen.FailureDetail) -> None:
        if failure.fault is Fault.CALLER:
            assert story.ask.bad, f"{_name(story)} was blamed for {failure.code}"
            return
        self._nobody_could(story)
        request = story.request
        if failure.code in LOSSES and request is not None and not request.exhausted:
            waited = self._now - story.lost_at
            assert waited >= WAIT_SECONDS_MAX - 0.1, f"{_name(story)} was given up {waited:.1f} s after a loss"

    def _nobody_could(self, story: Story) -> None:
        """A request was given up: then no node that is well was left for it, or a bound was met."""
        request = story.request
        if request is not None and request.exhausted:
            return
        for site in self._sites.values():
            if site.calm(self._now - KNOWN_SECONDS) and self._could(site, story):
                raise AssertionError(f"{_name(story)} was given up, and {site.node_id} is well and could take it")

    def _could(self, site: Site, story: Story) -> bool:
        offer = self._state.roster.nodes[site.node_id].offers.get(story.ask.model)
        if offer is None or offer.life in story.failed_on:
            return False
        if (left := story.left.get(offer.life)) is not None:
            # A request that nothing has happened to yet is told that all are busy.
            return bool(story.pins or story.failed_on) and self._now - left > LEFT_SECONDS + KNOWN_SECONDS
        return not story.pins or story.pins == {offer.engine.pin}

    def _look_at_loads(self) -> None:
        """What an offer counts as under way is what was begun there and has not ended."""
        begun = Counter(id(story.current.offer) for story in self._by_stream.values() if story.current)
        for node in self._state.roster.nodes.values():
            for offer in node.offers.values():
                count = begun.get(id(offer), 0)
                assert offer.in_flight == count, f"{offer.node_id} counts {offer.in_flight} in flight; {count} are"

    # --- at every tick ------------------------------------------------------------------------------

    def ticked(self) -> None:
        """A tick has passed: deadlines have been kept, and nothing is forgotten."""
        attempts, now = self._state.attempts, self._now
        for request in attempts.requests.values():
            waits = request.request_id in attempts.waiting
            assert waits is (request.current is None), "a request is asked of nobody and waits for nobody"
            if waits:
                assert now < request.wait_until <= now + WAIT_SECONDS_MAX, "a request waits for too long"
        for attempt in attempts.by_stream.values():
            assert now <= attempt.deadline <= attempt.request.deadline + 5.0, "an attempt is past its deadline"
        open_requests = self._coordinator.driver.open_requests
        assert len(attempts.requests) <= open_requests, "requests are known that nobody waits for"
        for link in self._coordinator.links.all():
            for stream in link.sinks:
                taken = attempts.by_stream.get(stream)
                assert taken is not None, "a link takes frames of an attempt that is over"
                assert taken.link == link.id, "a link takes frames of another's attempt"
        if self._coordinator.driver.lag_seconds > LAG_SECONDS_MAX:
            self._late_at = now
        if now - self._late_at > _UNHEARD_SECONDS:
            for story in self._by_stream.values():
                if story.current is not None:
                    self._look_at_silence(story, story.current)
        for site in self._sites.values():
            if site.calm_since is None:
                site.look()

    def _look_at_silence(self, story: Story, current: Try) -> None:
        """Nobody waits for a node that says nothing or is about to stop, while another is well."""
        now, attempt = self._now, self._state.attempts.by_stream[current.stream]
        node = self._state.roster.nodes[current.site.node_id]
        silent = now - max(node.heard_at, current.begun_at) > _UNHEARD_SECONDS
        # Without credit it is the caller who is slow.
        if not story.ask.padding and current.spoke_at is not None and story.ask.kind is Kind.STREAMED:
            silent = silent or now - current.spoke_at > _UNSPOKEN_SECONDS
        if not (silent or current.site.leaving(_LEAVES_SECONDS)) or attempt.phase is Phase.CLOSING:
            return
        request = attempt.request
        if request.attempts >= ATTEMPTS_MAX or request.failures >= FAILURES_MAX - 1:
            return
        for site in self._sites.values():
            well = site is not current.site and site.calm(now - _UNSPOKEN_SECONDS)
            if well and self._could(site, story):
                raise AssertionError(f"{_name(story)} waits for {node.node_id}, and {site.node_id} is well")

    # --- at the end ---------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether nothing is under way any more, on either side."""
        if self._coordinator.driver.open_requests or any(s.ending is None for s in self.stories.values()):
            return False
        return all(site.agent is not None and not site.agent.running for site in self._sites.values())

    def well(self) -> bool:
        """Whether every node serves again."""
        return all(site.calm_since is not None for site in self._sites.values())

    def ended(self) -> None:
        """The run is over, all faults ended long ago: nothing is left of anything."""
        for story in self.stories.values():
            assert story.ending is not None, f"{_name(story)} has not ended"
        assert self.well(), "a node did not recover: " + ", ".join(
            site.node_id for site in self._sites.values() if site.calm_since is None
        )
        attempts, links = self._state.attempts, self._coordinator.links.all()
        left = (attempts.requests, attempts.by_stream, attempts.waiting, attempts.links())
        assert not any(left), f"the coordinator has not forgotten {left}"
        assert len(links) == len(self._sites), f"{len(links)} links of {len(self._sites)} nodes"
        for link in links:
            assert not link.sinks, f"a link still takes frames of {list(link.sinks)}"
        for node in self._state.roster.nodes.values():
            for offer in node.offers.values():
                assert not offer.in_flight, f"{node.node_id} counts {offer.in_flight} in flight for ever"
        for site in self._sites.values():
            self._nothing_left_at(site)
        held = self._coordinator.held
        assert held.take(HELD_BYTES_MAX), "memory held for callers was not given back"

    def _nothing_left_at(self, site: Site) -> None:
        assert site.agent is not None, "every node is up at the end"
        state, session = site.agent.state, site.agent.dialling.session
        assert not state.attempts, f"{site.node_id} has not forgotten {len(state.attempts)} attempts"
        for view in state.engines.values():
            assert not view.in_flight, f"{site.node_id}: {view.id} counts {view.in_flight} in flight for ever"
        assert session is not None, f"{site.node_id} has no link"
        assert not session.open_attempts(), f"{site.node_id} keeps sinks for ever"


def _name(story: Story) -> str:
    return f"request {story.ask.number} ({story.ask.kind.value}, {story.ask.request_id.hex()[:12]})"
