"""What is known of one model: who offers it, how fast it usually is, and how soon places come free."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from shrk_contract.terms import EngineReport
from shrk_coordinator.state.affinity import Affinity, Ring
from shrk_coordinator.state.breaker import Breaker
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.events import FailureDetail, LinkId, NodeId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.nowhere import Nowhere
from shrk_coordinator.state.replicas.facts import LOAD_SECONDS
from shrk_coordinator.state.speed import FirstTokens, Speed, Usual

#: One in so many of an engine's slots may be asked for before it is free: what fills it is then on its way already.
AHEAD = 8
#: A node that says that it is busy is left alone for so long, and that many times as long if it keeps saying so.
BUSY_SECONDS = 1.0
REJECTIONS_MAX = 5
#: Of what a node says when a request fails there: a line in a table.
FAILURE_LENGTH_MAX = 200
#: More than this no agent's own settings allow; what a node claims beyond it is not believed.
SLOTS_MAX = 1_024
#: Of the newest answer in the running mean of how long one takes.
WEIGHT = 0.1
#: What one node may make of how long a load takes: nobody else's is cut short or waited for because of it.
LOAD_SECONDS_MAX = 3_600.0
#: Of the newest load in the running mean of how long one takes.
LOAD_WEIGHT = 0.3


@dataclass(slots=True)
class Standing:
    """One model on one node, whatever became of its links and engines meanwhile."""

    breaker: Breaker = field(default_factory=Breaker)
    speed: Speed = field(default_factory=Speed)
    #: What failed there last, until a token comes; its message cut short.
    last_failure: FailureDetail | None = None
    #: Its node has said that it takes nothing more; until then it is not asked.
    busy_until: float = 0.0
    _rejections: int = 0

    def spoke(self) -> None:
        """A token came. What it was like before it failed says nothing about it now."""
        if not self.breaker.closed:
            self.speed = Speed()
        self.breaker.spoke()
        self.last_failure = None
        self._rejections = 0

    def stalled(self, now: float, begun_at: float, why: FailureDetail) -> None:
        """A stream stalled there, sent at `begun_at`."""
        self.breaker.stall(now, begun_at)
        self._remember(why)

    def _remember(self, why: FailureDetail) -> None:
        self.last_failure = replace(why, message=why.message[:FAILURE_LENGTH_MAX])

    def failed(
        self,
        now: float,
        lost: EngineLife | None = None,
        begun_at: float | None = None,
        why: FailureDetail | None = None,
    ) -> bool:
        """A request failed there, sent at `begun_at`; `lost`: with the engine itself, if it is so. True where it is."""
        if why is not None:
            self._remember(why)
        gone = self.breaker.failed(now, lost, begun_at)
        if not gone:
            self.speed.failed(now)
        return gone

    def rejected(self, now: float) -> None:
        """Its node would not take a request: others are asked for a while."""
        self._rejections += 1
        self.busy_until = now + min(self._rejections, REJECTIONS_MAX) * BUSY_SECONDS


@dataclass(slots=True)
class Offer:
    """One engine of one node, as placement sees it."""

    node_id: NodeId
    link: LinkId
    engine: EngineReport
    standing: Standing = field(default_factory=Standing)
    #: Attempts of this coordinator under way there.
    in_flight: int = 0
    #: The most of them since the last report.
    in_flight_peak: int = 0
    #: Work that others gave it, by its own word.
    outside: int = 0
    #: Attempts ever placed there; breaks ties so that idle nodes take turns.
    placed: int = 0

    @property
    def life(self) -> EngineLife:
        """Which start of which engine this is."""
        return EngineLife(self.link, self.engine.id, self.engine.life)

    @property
    def slots(self) -> int:
        """Answers that it generates at once."""
        return min(max(1, self.engine.slots), SLOTS_MAX)

    @property
    def live(self) -> int:
        """What it works on, for us and for others."""
        return self.in_flight + self.outside

    def has_room(self, *, queues: bool) -> bool:
        """Whether one more may be sent. `queues`: its caller is in the middle of an answer, and better off in the
        engine's own queue than with an error."""
        return queues or self.live < self.slots + self.slots // AHEAD

    def began(self, now: float) -> bool:
        """An attempt is sent; True where it shows whether the engine is well again."""
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        self.placed += 1
        return self.standing.breaker.began(now)

    def ended(self) -> None:
        """An attempt is over."""
        self.in_flight = max(0, self.in_flight - 1)

    def reported(self, engine: EngineReport) -> None:
        """Its node's newest word. What it counts more than we ever sent it since the last one is others' work."""
        self.engine = engine
        self.outside = max(0, engine.running + engine.waiting - self.in_flight_peak)
        self.in_flight_peak = self.in_flight


class Served:
    """One model."""

    __slots__ = (
        "_answer_seconds",
        "_at",
        "_next",
        "_order",
        "_ring",
        "_slots",
        "asked_at",
        "away",
        "first_tokens",
        "found_full",
        "full_at",
        "load_seconds",
        "loading",
        "named_by",
        "offers",
        "usual",
    )

    def __init__(self) -> None:
        self.offers: dict[NodeId, Offer] = {}
        #: The nodes that have named it and do not offer it now; those of which that is newest, last.
        self.away: dict[NodeId, None] = {}
        #: The nodes whose newest report names it.
        self.named_by: set[NodeId] = set()
        self.usual = Usual()
        self.first_tokens = FirstTokens()
        #: How long loading it takes, as a running mean; and the nodes that load it now, since when.
        self.load_seconds: float | None = None
        self.loading: dict[NodeId, float] = {}
        #: When a caller last wanted it; None: nobody has, since the coordinator knows of it.
        self.asked_at: float | None = None
        #: When a newcomer last looked for a place in vain, since all were taken; and what it found.
        self.full_at = -math.inf
        self.found_full: Nowhere | None = None
        #: The nodes in any order, and where each stands: so that some can be drawn without looking at all.
        self._order: list[NodeId] = []
        self._at: dict[NodeId, int] = {}
        #: The same for conversations, which have their homes among them.
        self._ring = Ring()
        #: Where the next look at some of them begins.
        self._next = 0
        #: How long an answer takes, None where nothing is known; and the slots of all engines.
        self._answer_seconds: float | None = None
        self._slots = 0

    def add(self, offer: Offer) -> None:
        """A node offers it."""
        if offer.node_id in self._at:
            self._slots -= self.offers[offer.node_id].slots
        else:
            self._at[offer.node_id] = len(self._order)
            self._order.append(offer.node_id)
            self._ring.add(offer.node_id)
        self.offers[offer.node_id] = offer
        self.away.pop(offer.node_id, None)
        self._slots += offer.slots

    def reported(self, offer: Offer, engine: EngineReport) -> None:
        """A node's newest word on an engine that it offers already."""
        before = offer.slots
        offer.reported(engine)
        self._slots += offer.slots - before

    def remove(self, node_id: NodeId) -> None:
        """A node offers it no more."""
        self._slots -= self.offers.pop(node_id).slots
        self._ring.remove(node_id)
        at, last = self._at.pop(node_id), self._order.pop()
        if last != node_id:
            self._order[at], self._at[last] = last, at
        self.left_by(node_id)

    def left_by(self, node_id: NodeId) -> None:
        """A node that has named it does not offer it now; of all those this is the newest."""
        self.away.pop(node_id, None)
        self.away[node_id] = None

    def loads(self, now: float, node_id: NodeId) -> None:
        """A node is loading it."""
        self.loading.setdefault(node_id, now)

    def loads_no_more(self, now: float, node_id: NodeId, *, serves: bool) -> None:
        """A node is not loading it, or not any more; `serves`: it has loaded it."""
        began = self.loading.pop(node_id, None)
        if began is not None and serves:
            seconds = min(now - began, LOAD_SECONDS_MAX)
            known = self.load_seconds
            self.load_seconds = seconds if known is None else known + LOAD_WEIGHT * (seconds - known)

    def seconds_to_load(self, now: float) -> float:
        """Until the first node that loads it should serve it, below 0 where it should by now; where none loads it,
        until one would that began now."""
        began = min(self.loading.values(), default=now)
        return began + (LOAD_SECONDS if self.load_seconds is None else self.load_seconds) - now

    def some(self, count: int, dice: Dice) -> Iterator[Offer]:
        """All offers where there are no more than `count`, else so many of them, drawn."""
        if len(self._order) <= count:
            yield from self.offers.values()
        else:
            for at in dice.sample(range(len(self._order)), count):
                yield self.offers[self._order[at]]

    def homes(self, affinity: Affinity, count: int) -> Iterator[Offer]:
        """Where a conversation is at home, the first first; of more than `count` so many."""
        for node_id in self._ring.homes(affinity, count):
            yield self.offers[node_id]

    def next(self, count: int) -> Iterator[Offer]:
        """All offers where there are no more than `count`, else the next so many, going round."""
        order = self._order
        if len(order) <= count:
            yield from self.offers.values()
            return
        first, self._next = self._next, (self._next + count) % len(order)
        for at in range(first, first + count):
            yield self.offers[order[at % len(order)]]

    def answered(self, seconds: float) -> None:
        """An answer took so long."""
        known = self._answer_seconds
        self._answer_seconds = seconds if known is None else known + WEIGHT * (seconds - known)

    @property
    def freed_per_second(self) -> float:
        """How many places come free in a second while all are taken; 0 where nothing is known."""
        return self._slots / self._answer_seconds if self._answer_seconds else 0.0
