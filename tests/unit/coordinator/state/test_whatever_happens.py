"""Whatever happens, in whatever order: every request ends exactly once, and every slot comes back."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from shrk_contract.terms import CANNOT_RESUME, DIVERGED, Fault, Rejection, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId, RequestId, StreamId
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.request import ATTEMPTS_MAX, FAILURES_MAX, Phase
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from support.states import OTHER_PIN, PIN, a_failure, a_report, ask, new_link

NODES = ("a", "b", "c", "d")
PIN_OF = {"a": PIN, "b": PIN, "c": PIN, "d": OTHER_PIN}
#: Codes of nodes and engines, some of which are followed by a wait.
CODES = ("engine_lost", "engine_hung", "engine_nonsense", "", CANNOT_RESUME, DIVERGED)


class World:
    """Nodes, callers and time around the state, all by the same dice; and what must always hold."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.state = CoordinatorState()
        self.now = 0.0
        self.links: dict[NodeId, LinkId] = {}
        self.lives = Counter[NodeId]()
        self.asked: list[RequestId] = []
        self.ended = Counter[RequestId]()
        self.started = Counter[RequestId]()
        #: Attempts that ended have ended: no effect may name them again.
        self.over: set[StreamId] = set()
        #: Engines that failed a request, or were left by it.
        self.left: dict[RequestId, set[EngineLife]] = {}
        for node in NODES:
            self.dial(node)

    def take(self, event: seen.Event) -> None:
        """One fact; what follows from it is noted, and checked."""
        attempts = self.state.attempts
        before = dict(attempts.by_stream)
        effects = self.state.handle(event)
        for effect in effects:
            match effect:
                case do.StartAttempt():
                    self._started(effect)
                case do.CancelAttempt(stream) | do.ReleaseStream(stream):
                    assert stream in before
                    self.over.add(stream)
                case do.RefuseRequest(request_id) | do.FailRequest(request_id):
                    self.ended[request_id] += 1
                case do.CompleteRequest(request_id):
                    self.ended[request_id] += 1
                    assert any(
                        a.request.request_id == request_id and a.phase is Phase.CLOSING for a in before.values()
                    ), "only an answer whose last token came is complete without its node"
        assert before.keys() - attempts.by_stream.keys() <= self.over, "a node is told of every attempt that ended"
        self.check()

    def _started(self, effect: do.StartAttempt) -> None:
        attempt = self.state.attempts.by_stream[effect.stream]
        self.started[effect.request_id] += 1
        assert effect.stream not in self.over
        assert self.started[effect.request_id] == effect.attempt <= ATTEMPTS_MAX
        assert self.links[effect.node_id] == effect.link, "only linked nodes are asked"
        assert (effect.resume is not None) == attempt.request.delivered
        assert effect.rival == (attempt is attempt.request.rival)
        assert attempt.life not in attempt.request.tried

    def check(self) -> None:
        """What must hold after every event."""
        attempts = self.state.attempts
        for request in attempts.requests.values():
            waits = request.request_id in attempts.waiting
            assert (request.current is None) == waits, "a request has an attempt or waits for one"
            assert request.failures <= FAILURES_MAX
            assert request.rival is None or not (request.delivered or waits), "whoever speaks has no rival left"
            if waits:
                assert self.now <= request.wait_until + WAIT_SECONDS_MAX
        for attempt in attempts.by_stream.values():
            assert attempt in (attempt.request.current, attempt.request.rival)
            assert attempt.deadline <= attempt.request.deadline or attempt.phase is Phase.ASKED
        assert sum(not r.delivered for r in attempts.waiting) <= WAITING_MAX
        assert all(offer.in_flight >= 0 for _, offer in self.state.roster.offers("m"))

    # --- what may happen ---------------------------------------------------------------------------

    def stream(self) -> StreamId:
        """Some attempt under way, or one that has ended."""
        return self.rng.choice([*self.state.attempts.by_stream, *sorted(self.over)[-2:], 0])

    def dial(self, node: NodeId) -> None:
        """A node dials, maybe over its older link, and may report at once."""
        link = new_link()
        self.take(seen.NodeHello(self.now, node, link, 1, "o"))
        self.links[node] = link
        if self.rng.random() < 0.8:
            self.report(node)

    def report(self, node: NodeId) -> None:
        """It serves, or is between two lives of its engine."""
        serves = State.ONLINE if self.rng.random() < 0.9 else State.LOADING
        report = a_report("m", state=serves, pin=PIN_OF[node], life=self.lives[node], slots=self.rng.choice((1, 4)))
        self.take(seen.NodeReported(self.now, node, self.links[node], report))

    def ask(self) -> None:
        """A caller asks."""
        request_id, effects = ask(
            self.state, now=self.now, streaming=self.rng.random() < 0.7, by_ids=self.rng.random() < 0.5
        )
        self.asked.append(request_id)
        for effect in effects:
            if isinstance(effect, do.StartAttempt):
                self._started(effect)
            else:
                assert isinstance(effect, do.RefuseRequest)
                self.ended[request_id] += 1
        self.check()

    def say(self) -> None:
        """An attempt goes a step on; only streams tell of their tokens."""
        stream = self.stream()
        attempt = self.state.attempts.by_stream.get(stream)
        steps: list[seen.Event] = [seen.AttemptAccepted(self.now, stream)]
        if attempt is not None and attempt.request.streaming:
            steps += [seen.FirstPieceDelivered(self.now, stream, 3)] * 3 + [seen.IdsUnknown(self.now, stream)]
            steps += [seen.HedgeDue(self.now, stream)] * 2
            if attempt.phase is Phase.ANSWERING:
                steps += [seen.LastTokenDelivered(self.now, stream), seen.AttemptStalled(self.now, stream)]
        self.take(self.rng.choice(steps))

    def finish(self) -> None:
        """An attempt ends well."""
        stream = self.stream()
        if attempt := self.state.attempts.by_stream.get(stream):
            self.ended[attempt.request.request_id] += 1
        self.take(seen.AttemptFinished(self.now, stream, 9))

    def fail(self) -> None:
        """An attempt ends badly, in words or in deeds."""
        failure = self.rng.choice((*map(a_failure, CODES), FailureDetail(Fault.CALLER, "too long", http_status=400)))
        stream = self.stream()
        self.take(
            self.rng.choice(
                (
                    seen.AttemptFailed(self.now, stream, failure),
                    seen.AttemptBroken(self.now, stream, a_failure("node_broke_contract", Fault.NODE)),
                    seen.AttemptRejected(self.now, stream, Rejection.BUSY),
                )
            )
        )

    def lose(self) -> None:
        """A link is cut; its node dials again, or stays away for a while."""
        node = self.rng.choice(NODES)
        self.take(seen.LinkClosed(self.now, node, self.links[node], "cut"))
        if self.rng.random() < 0.5:
            self.dial(node)

    def mend(self) -> None:
        """A node dials, or its engine begins its next life."""
        node = self.rng.choice(NODES)
        if self.rng.random() < 0.5:
            self.dial(node)
        else:
            self.lives[node] += 1
            self.report(node)

    def drain(self) -> None:
        """A node stops, at once or after a while."""
        node = self.rng.choice(NODES)
        self.take(seen.NodeDraining(self.now, node, self.links[node], self.rng.choice((0.0, 8.0))))

    def leave(self) -> None:
        """A caller leaves, maybe one that has its answer."""
        if not self.asked:
            return
        request_id = self.rng.choice(self.asked[-20:])
        if request_id in self.state.attempts.requests:
            self.ended[request_id] += 1
        self.take(seen.CallerLeft(self.now, request_id))

    def pass_time(self) -> None:
        """Some ticks, mostly punctual, while some nodes are heard."""
        heard = [node for node in NODES if self.rng.random() < 0.8]
        for _ in range(self.rng.choice((1, 4, 24))):
            self.now += self.rng.choice((0.25, 0.25, 0.25, 0.3, 6.0)) if self.rng.random() < 0.3 else 0.25
            for node in heard:
                self.take(seen.NodeHeard(self.now, node, self.links[node]))
            self.take(seen.Tick(self.now))

    def quiesce(self) -> None:
        """Callers leave, and what is left of their requests is looked at."""
        for request_id in list(self.state.attempts.requests):
            self.ended[request_id] += 1
            self.take(seen.CallerLeft(self.now, request_id))


#: Each with its weight.
HAPPENINGS = (
    (World.ask, 6),
    (World.say, 12),
    (World.finish, 2),
    (World.fail, 4),
    (World.lose, 1),
    (World.mend, 1),
    (World.drain, 1),
    (World.leave, 1),
    (World.pass_time, 4),
)


@pytest.mark.parametrize("seed", range(300))
def test_whatever_happens_every_request_ends_exactly_once_and_every_slot_comes_back(seed: int) -> None:
    print(f"seed {seed}")
    world = World(seed)
    happenings, weights = zip(*HAPPENINGS, strict=True)
    for happening in world.rng.choices(happenings, weights, k=200):
        happening(world)
    world.quiesce()
    attempts, journal = world.state.attempts, world.state.journal
    assert world.ended == Counter(world.asked)
    for left in (attempts.requests, attempts.by_stream, attempts.waiting, attempts.links()):
        assert not left
    assert all(offer.in_flight == 0 for _, offer in world.state.roster.offers("m"))
    for request_id in world.asked:
        entry = journal.find(request_id)
        assert entry is not None
        assert len(entry.attempts) == world.started[request_id]
        outcomes = [entry.outcome, *(attempt.outcome for attempt in entry.attempts)]
        assert Outcome.UNDER_WAY not in outcomes
        assert all(attempt.ended_at is not None for attempt in entry.attempts)


def test_the_dice_reach_every_way_of_going_on_and_every_end() -> None:
    reached = Counter[str]()
    for seed in range(60):
        world = World(seed)
        happenings, weights = zip(*HAPPENINGS, strict=True)
        for happening in world.rng.choices(happenings, weights, k=200):
            happening(world)
        world.quiesce()
        for request_id in world.asked:
            entry = world.state.journal.find(request_id)
            assert entry is not None
            reached[entry.outcome] += 1
            reached.update(f"attempt {attempt.outcome} {attempt.code}" for attempt in entry.attempts)
            reached.update(f"resume {attempt.resume}" for attempt in entry.attempts)
            # Whole though its last attempt was not.
            reached["completed"] += entry.outcome is Outcome.FINISHED and entry.attempts[-1].outcome is Outcome.FAILED
    codes = {"node_silent", "node_stalled", "node_draining"}
    wanted = {f"attempt {Outcome.HANDED_OVER} {code}" for code in codes}
    wanted |= {f"attempt {Outcome.OUTRUN} "}
    wanted |= {"resume by_ids", "resume replay", "resume None", "completed"}
    wanted |= {outcome.value for outcome in Outcome} - {
        Outcome.UNDER_WAY,
        Outcome.REJECTED,
        Outcome.HANDED_OVER,
        Outcome.OUTRUN,
    }
    assert not [way for way in wanted if not reached[way]], reached
