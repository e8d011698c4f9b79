"""What must hold, looked at with every event of the coordinator, at every tick and at the end.

The judge knows what the coordinator cannot: which nodes are well, what each request was told by whom, and what every
token had to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, Pin
from shrk_coordinator.driver import LAG_SECONDS_MAX
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.continuation import CONFIRMED_LOSSES, LOSSES
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, FailureDetail, RequestId, StreamId
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from simulation.asks import Ask, Kind
from simulation.budgets import Budgets
from simulation.chances import Chances
from simulation.coordinator import Coordinator
from simulation.deaths import Deaths
from simulation.patience import UNHEARD_SECONDS, Patience
from simulation.reader import Ending
from simulation.remains import nothing_remains
from simulation.site import Site
from simulation.standings import Standings
from simulation.story import Story, Try

#: Events after which an attempt may be moved from a node that may yet finish it.
_MOVES = (seen.Tick, seen.AttemptStalled, seen.NodeDraining)
#: Events of an attempt that speaks: another for the same request is not wanted any more.
_SPEAKS = (seen.RaceWon, seen.FirstPieceDelivered, seen.AttemptFinished)


class Laws:
    """One run's judge."""

    def __init__(self, coordinator: Coordinator, sites: Mapping[str, Site], hardware: Mapping[Pin, int]) -> None:
        self.stories: dict[RequestId, Story] = {}
        self.budgets = Budgets()
        self._coordinator = coordinator
        self._state = coordinator.driver.state
        self._sites = sites
        self._hardware = hardware
        #: Of every attempt ever begun; and those under way.
        self._pins: dict[StreamId, Pin] = {}
        self._tries: dict[StreamId, Try] = {}
        self._standings, self._deaths = Standings(), Deaths()
        self.chances = Chances(self._state, sites, self._tries, self._standings, self._deaths)
        self._patience = Patience(self._state, sites, self.chances)
        #: When the coordinator was last so late that it could not tell who was silent.
        self._late_at = 0.0

    @property
    def _now(self) -> float:
        return self._coordinator.world.clock.now

    def hardware_of(self, stream: StreamId) -> int:
        """The kind of hardware that an attempt runs on."""
        return self._hardware[self._pins[stream]]

    # --- callers and relays -------------------------------------------------------------------------

    def asked(self, ask: Ask) -> None:
        """A caller is about to ask."""
        self.stories[ask.request_id] = Story(ask, self._now)

    def answered(self, ask: Ask, ending: Ending, error: str, usage_told: bool) -> None:
        """A caller has its answer, or an error, or is gone."""
        story = self.stories[ask.request_id]
        assert story.ending is None, f"{story.name} ended twice: {story.ending.value}, then {ending.value}"
        story.ending, story.error = ending, error
        assert story.over, f"{story.name} has ended and is not forgotten"
        if ending is not Ending.LEFT:
            assert ending is story.due, f"{story.name} was to end {story.due.value} and ended {ending.value}"
        if ending is Ending.FINISHED and ask.include_usage and ask.kind is not Kind.WHOLE:
            assert usage_told, f"{story.name} was not told its usage"

    def accepted(self, request_id: RequestId, stream: StreamId) -> None:
        """A relay has accepted a piece that names this stream."""
        story = self.stories[request_id]
        current = story.current
        assert current is not None, f"{story.name}: a frame of stream {stream} was accepted, and none is under way"
        assert current.stream == stream, f"{story.name}: stream {stream} was accepted, {current.stream} is current"
        assert story.rival is None, f"{story.name}: one of two attempts has spoken, and the other is under way"
        current.spoke_at = self._now
        if story.ask.kind is Kind.STREAMED:
            story.pins.add(current.pin)

    # --- with every event ---------------------------------------------------------------------------

    def handled(self, event: Event, effects: list[Effect]) -> None:
        """The coordinator's state has taken in an event."""
        self._heard(event, effects)
        self.chances.starting = sum(isinstance(effect, do.StartAttempt) for effect in effects)
        ended = set[StreamId]()
        for effect in effects:
            match effect:
                case do.StartAttempt():
                    self._began(effect, event)
                case do.ReleaseStream(stream, _) | do.CancelAttempt(stream, _, _):
                    if stream not in ended:
                        ended.add(stream)
                        self._ended(stream, event, effects)
                case do.RefuseRequest(request_id, why):
                    self._refused(self._end(request_id, Ending.ERROR), why, event)
                case do.FailRequest(request_id, failure):
                    self._failed(self._end(request_id, Ending.ERROR), failure)
                case do.CompleteRequest(request_id):
                    self._end(request_id, Ending.FINISHED)
                case _:
                    pass
        if effects:
            self._look_at_loads()

    def _heard(self, event: Event, effects: list[Effect]) -> None:
        """What the event itself says."""
        match event:
            case seen.RequestArrived(_, request_id):
                story = self.stories[request_id]
                story.request, story.waits_since = self._state.attempts.requests.get(request_id), self._now
                refusals = [effect.why for effect in effects if isinstance(effect, do.RefuseRequest)]
                if not any(isinstance(why, do.UnknownModel | do.Poisoned) for why in refusals):
                    self.budgets.request()
            case seen.CallerLeft(_, request_id):
                # The last word on every request; usually it has been ended before.
                story = self.stories[request_id]
                story.over = True
                self.budgets.over(story)
            case seen.FirstPieceDelivered(_, stream) | seen.AttemptFinished(_, stream):
                if attempt := self._tries.get(stream):
                    self._spoke(attempt, event)
            case seen.LastTokenDelivered(_, stream):
                if attempt := self._tries.get(stream):
                    attempt.closing = True
            case seen.AttemptStalled(_, stream):
                if attempt := self._tries.get(stream):
                    self._standings.stalled(attempt)
            case _:
                pass

    def _spoke(self, attempt: Try, event: Event) -> None:
        self._standings.spoke(attempt)
        if isinstance(event, seen.FirstPieceDelivered):
            attempt.story.failures = 0
            self._deaths.spoke(attempt)
        else:
            self.chances.answered(attempt, self._now)

    def _end(self, request_id: RequestId, due: Ending) -> Story:
        story = self.stories[request_id]
        assert not story.over, f"{story.name} was ended twice"
        assert not story.tries, f"{story.name} has ended, and is asked of nodes all the same"
        story.over, story.due = True, due
        self.budgets.over(story)
        return story

    def _began(self, effect: do.StartAttempt, event: Event) -> None:
        story, now = self.stories[effect.request_id], self._now
        request = self._state.attempts.requests.get(effect.request_id)
        assert request is not None, f"{story.name} is asked of a node before it came, or behind its end"
        assert not story.over, f"{story.name} goes on behind its end"
        assert not story.denied, f"{story.name} is tried again, and no retry was left for it"
        assert not story.exhausted, (
            f"{story.name} is asked for the {effect.attempt}th time, after {story.failures} failures"
        )
        assert (effect.resume is None) is not request.delivered, f"{story.name} goes on from what was not delivered"
        offer = self._state.roster.nodes[effect.node_id].offers[story.ask.model]
        assert offer.life not in story.failed_on, f"{story.name} is asked again of what has failed it"
        site, pin = self._sites[effect.node_id], offer.engine.pin
        attempt = Try(effect.stream, story, offer.life, pin, offer, site, now)
        if effect.rival:
            self._rivals(story, attempt, event)
        else:
            assert not story.tries, f"{story.name} has two attempts at once"
        self._deaths.begun(attempt, self.chances.offering(story.ask.model), self._tries.values(), now)
        self._standings.begun(attempt, now)
        story.begins(attempt, rival=effect.rival)
        self._tries[effect.stream] = attempt
        self._pins[effect.stream] = pin

    def _rivals(self, story: Story, attempt: Try, event: Event) -> None:
        """A second node is asked: late enough, of what nobody has answered yet, and not of what may crash it too."""
        [current] = story.tries
        assert isinstance(event, seen.HedgeDue), f"{story.name} has a rival attempt for no reason"
        assert story.ask.kind is Kind.STREAMED, f"{story.name} has a rival attempt, and shows nothing before its end"
        said = story.pins or current.spoke_at is not None
        assert not said, f"{story.name} has a rival attempt behind its first token"
        assert current.site is not attempt.site, f"{story.name} rivals itself on {attempt.site.node_id}"
        assert not self._deaths.nodes(story, self._now), f"{story.name} is a suspect, and runs twice"
        self.budgets.hedge(story)

    # --- an attempt ends ------------------------------------------------------------------------------

    def _ended(self, stream: StreamId, event: Event, effects: list[Effect]) -> None:
        attempt = self._tries.pop(stream, None)
        assert attempt is not None, "what was never begun, or is over, has ended"
        story = attempt.story
        cancelled = any(isinstance(e, do.CancelAttempt) and e.stream == stream for e in effects)
        released = any(isinstance(e, do.ReleaseStream) and e.stream == stream for e in effects)
        own = getattr(event, "stream", None) == stream
        story.drops(attempt, self._now)
        self._standings.over(attempt)
        if isinstance(event, seen.CallerLeft):
            return
        if own and isinstance(event, seen.AttemptFinished):
            self._finished(story, effects)
        elif not released:
            self._taken_back(story, attempt, event)
        elif own and not cancelled and isinstance(event, seen.AttemptRejected):
            story.left[attempt.life] = self._now
            story.rejections += 1
            if story.rejections > 1 and not (story.tries or story.pins or story.exhausted):
                self.budgets.retry(story)
                story.denied = False  # Without one it waits with those that all nodes are too busy for.
            self._node_at_fault(attempt, event)
        else:
            self._lost(attempt, _failure_of(event, own, cancelled))

    def _finished(self, story: Story, effects: list[Effect]) -> None:
        story.over, story.due = True, Ending.FINISHED
        self.budgets.over(story)
        for other in story.tries:
            assert any(isinstance(e, do.CancelAttempt) and e.stream == other.stream for e in effects), (
                f"{story.name} is whole, and another node still works on it"
            )

    def _taken_back(self, story: Story, attempt: Try, event: Event) -> None:
        """It was told to stop, and has done nothing wrong that it said: another was faster, or it is moved."""
        other = getattr(event, "stream", None)
        if other is not None and other != attempt.stream:
            faster = isinstance(event, _SPEAKS)
            assert faster or isinstance(event, seen.AttemptFailed | seen.AttemptBroken), f"{story.name}: {event}"
            assert self._pins.get(other) is not None, f"{story.name} was taken back for nobody"
            if not faster:
                assert story.ask.bad, f"{story.name} was taken back, and its caller is not at fault"
            return
        assert isinstance(event, _MOVES), f"{story.name} was moved for no reason: {event}"
        story.left[attempt.life] = story.lost_at = self._now
        story.failures = 0 if attempt.spoke_at is not None and story.pins else story.failures + 1
        self._node_at_fault(attempt, event)

    def _lost(self, lost: Try, failure: FailureDetail) -> None:
        """An attempt came to nothing: was the node at fault, and may another be asked?"""
        story, now = lost.story, self._now
        spoke = lost.spoke_at is not None and bool(story.pins)
        if not story.tries:
            story.lost_at = now
        if failure.fault is Fault.CALLER and story.ask.bad:
            return
        if lost.closing:
            self._node_at_fault(lost, failure)
            return
        if failure.code == CANNOT_RESUME and not _continues_by_ids(lost):
            return
        story.failures = 0 if spoke else story.failures + 1
        story.failed_on.add(lost.life)
        if failure.code == DIVERGED and story.pins != {lost.pin}:
            return
        confirmed = failure.code in CONFIRMED_LOSSES
        if failure.fault in (Fault.NODE, Fault.ENGINE) and failure.code not in (CANNOT_RESUME, DIVERGED):
            confirmed = self._standings.failed(lost, now, confirmed=confirmed)
        if failure.code == "engine_crashed" and not spoke and not story.pins:
            self._deaths.crashed(lost, now)
        if not (story.tries or story.pins or confirmed or story.exhausted or self._deaths.convicted(story, now)):
            self.budgets.retry(story)
        self._node_at_fault(lost, failure)

    def _node_at_fault(self, lost: Try, why: object) -> None:
        assert not lost.site.calm(lost.begun_at), f"{lost.story.name} lost an attempt on a node that is well: {why}"

    # --- a request is given up ------------------------------------------------------------------------

    def _refused(self, story: Story, why: object, event: Event) -> None:
        match why:
            case do.Poisoned():
                assert self._deaths.convicted(story, self._now), f"{story.name} is refused, and crashed less than two"
            case do.NoNode() if not isinstance(event, seen.RequestArrived):
                if not (story.exhausted or self.chances.line_is_full(story)):
                    waited = self._now - story.arrived_at
                    assert waited >= WAIT_SECONDS_MAX - 1e-6, f"{story.name} is refused after {waited:.1f} s"
                    self._nobody_could(story)
            case do.NoNode() | do.UnknownModel():
                self._refused_at_once(story)
            case _:
                raise AssertionError(f"{story.name} was told of another endpoint")

    def _refused_at_once(self, story: Story) -> None:
        """Nobody waits in vain: nobody could take it, or those before it take all that comes free for too long."""
        if not (self.chances.line_is_full(story) or self.chances.waits_in_vain(story)):
            busy = self.chances.somebody(story, self._now, full=True)
            assert busy is None, f"{story.name} was refused, and could have had its turn at {busy and busy.node_id}"
        elif not self._state.attempts.waiting.anyone(story.ask.model):
            self._nobody_could(story)

    def _failed(self, story: Story, failure: FailureDetail) -> None:
        if failure.fault is Fault.CALLER:
            assert story.ask.bad, f"{story.name} was blamed for {failure.code}"
            return
        if story.exhausted or story.denied:
            return
        if not story.pins and self.chances.line_is_full(story):
            return
        self._nobody_could(story)
        if failure.code in LOSSES:
            waited = self._now - story.lost_at
            assert waited >= WAIT_SECONDS_MAX - 0.1, f"{story.name} was given up {waited:.1f} s after a loss"

    def _nobody_could(self, story: Story) -> None:
        """A request was given up: then no node that is well was left for it, or a bound was met."""
        if not story.exhausted:
            site = self.chances.somebody(story, self._now)
            assert site is None, f"{story.name} was given up, and {site and site.node_id} is well and could take it"

    def _look_at_loads(self) -> None:
        """What an offer counts as under way is what was begun there and has not ended."""
        begun = Counter(id(attempt.offer) for attempt in self._tries.values())
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
            assert request.rival is None or not (waits or request.delivered), "a rival outlived its race"
            if waits:
                self._patience.with_line(self.stories[request.request_id], now)
        for model in attempts.waiting.models():
            assert attempts.waiting.new(model) <= WAITING_MAX, f"too many wait for {model}"
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
        if now - self._late_at > UNHEARD_SECONDS:
            for current in self._tries.values():
                self._patience.with_node(current, now)
        for site in self._sites.values():
            if site.calm_since is None:
                site.look()

    # --- at the end ---------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether nothing is under way any more, on either side."""
        if self._coordinator.driver.open_requests or any(s.ending is None for s in self.stories.values()):
            return False
        return all(site.agent is not None and not site.agent.running for site in self._sites.values())

    def well(self) -> bool:
        """Whether every node serves again."""
        return all(site.calm_since is not None for site in self._sites.values())

    def all_served(self, number: int) -> None:
        """Those that came after this number have been served by now."""
        for story in self.stories.values():
            assert story.ask.number <= number or story.pins, f"{story.name} came when all was well, and is not served"

    def ended(self) -> None:
        """The run is over, all faults ended long ago: nothing is left of anything."""
        for story in self.stories.values():
            assert story.ending is not None, f"{story.name} has not ended"
        lost = [site.node_id for site in self._sites.values() if site.calm_since is None]
        assert not lost, f"a node did not recover: {', '.join(lost)}"
        nothing_remains(self._coordinator, self._sites.values())


def _failure_of(event: Event, own: bool, cancelled: bool) -> FailureDetail:
    """What an attempt came to that was lost with this event; `own`: the event is about it."""
    if own and isinstance(event, seen.AttemptFailed | seen.AttemptBroken):
        return event.failure
    if own and isinstance(event, seen.AttemptRejected):
        return FailureDetail(Fault.NODE, "it was rejected behind its acceptance", code="node_broke_contract")
    late = cancelled and isinstance(event, seen.Tick)
    return FailureDetail(Fault.NODE, f"lost: {event}", code="node_timeout" if late else "node_lost")


def _continues_by_ids(attempt: Try) -> bool:
    return next(kind.continues_by_ids for kind in attempt.site.kinds if kind.id == attempt.offer.engine.id)
