"""The roster: every node the coordinator knows, its link, and what it offers.

    (unknown) --hello--> linked --closed / silent--> offline --hello--> linked

A node offers models only while it is linked, reports them as serving and is not draining. Silence longer than
SILENCE_SECONDS_MAX counts as a lost link: keepalive notices a cut path, silence notices a frozen agent.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from shrk_contract.terms import SERVING, SILENCE_SECONDS_MAX, EngineReport, Report, State
from shrk_coordinator.state.affinity import Affinity
from shrk_coordinator.state.dice import Dice
from shrk_coordinator.state.events import LinkId, NodeId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.reported import margin, shown_away
from shrk_coordinator.state.served import Offer, Served, Standing
from shrk_coordinator.state.starts import Start, Starts

#: Model names are kept after their last node left, so that callers hear "no node now" and not "unknown".
#: The bound keeps a node that invents names from filling memory.
MODELS_MAX = 10_000
#: Models of one node whose past is remembered, besides those that it offers now.
STANDINGS_MAX = 64
#: A link that was lost is dialled anew within a second or two; after this nobody waits for it.
BACK_SECONDS_MAX = 10.0
#: States of an engine that will serve before long, unless something is wrong with it.
COMING = frozenset({State.INSTALLING, State.STARTING, State.DOWNLOADING, State.LOADING, State.VERIFYING})
#: So many nodes of a model are looked at where nobody is found among a few that were drawn: if these cannot be asked
#: either, hardly one in thirty can.
LOOKED_MAX = 128
#: A caller's typing error may not cost more than a few milliseconds of everybody's time.
NAMES_COMPARED_MAX = 200
NAMES_LENGTH_MAX = 100


@dataclass(slots=True)
class Node:
    """One node."""

    node_id: NodeId
    owner: str
    incarnation: int
    link: LinkId | None
    heard_at: float
    #: It works for someone, and nothing has been heard from it for too long: asked only where nobody else is.
    quiet: bool = False
    #: It ends what runs and takes nothing new, or did so when its link was closed: its operator stops it.
    draining: bool = False
    #: While draining: from when on what still runs there is moved elsewhere.
    hand_over_at: float = 0.0
    report: Report | None = None
    offers: dict[str, Offer] = field(default_factory=dict)
    #: What is known of each model it has offered, whatever became of its links and engines.
    standings: dict[str, Standing] = field(default_factory=dict)
    #: Models that its newest report names.
    named: frozenset[str] = frozenset()
    #: When its owner wants it back, in monotonic seconds, and how many degrees it is below its cap; None: not known.
    closes_at: float | None = None
    margin: float | None = None
    kept_back: bool = False  # Its owner's terms keep it from taking anything new.
    #: The newest assignment that it has answered on this link, and what it would not do, by model.
    assigned_revision: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    #: When its link was lost, and what it offered then; while it drains, what it offered before.
    lost_at: float = 0.0
    lost_models: frozenset[str] = frozenset()
    #: What people are shown, also while it is away: why its link was lost, since when the present one lives and from
    #: which host it came, and what its last report called it.
    lost_why: str = ""
    linked_at: float = 0.0
    address: str = ""
    name: str = ""
    agent_version: str = ""
    #: Since when it is in the state that it is in; taking work is one state, however busy.
    since: float = 0.0
    #: The start of its agent that dialled last, and all those that did: a copied identity shows in them.
    start_id: bytes = b""
    starts: Starts = field(default_factory=Starts)
    #: A link of the same start, with an older certificate, on which what runs may end.
    leaving: LinkId | None = None
    _noted: State | None = None

    @property
    def start(self) -> Start:
        """The start of its agent that dialled last."""
        return self.incarnation, self.start_id

    def links(self) -> list[LinkId]:
        """Those that it has, the newest first."""
        return [link for link in (self.link, self.leaving) if link is not None]

    def heard(self, now: float) -> None:
        """Something came from it."""
        self.heard_at, self.quiet = now, False
        self.note(now)

    def note(self, now: float) -> None:
        """Its state may have changed: remember since when."""
        state = State.ONLINE if self.state in SERVING else self.state
        if state is not self._noted:
            self._noted, self.since = state, now

    def standing(self, model: str) -> Standing:
        """What is known of this model here."""
        known = self.standings.get(model)
        if known is None:
            if len(self.standings) >= STANDINGS_MAX + len(self.offers):
                self.standings = {name: one for name, one in self.standings.items() if name in self.offers}
            known = self.standings[model] = Standing()
        return known

    @property
    def state(self) -> State:
        """The node's state as the coordinator sees it."""
        if self.starts.copied_since is not None:
            return State.QUARANTINED
        if self.link is None:
            return State.OFFLINE
        if self.draining:
            return State.DRAINING
        return self.report.status.state if self.report else State.STARTING


class Roster:
    """All nodes, and an index from model to the offers of it."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Node] = {}
        self._models: dict[str, Served] = {}
        self._forgotten: list[str] = []

    def link(
        self,
        now: float,
        node_id: NodeId,
        link: LinkId,
        incarnation: int,
        owner: str,
        address: str = "",
        start_id: bytes = b"",
    ) -> Node:
        """A node is linked, whether new or back. `address`: the host that it came from, where that is known."""
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = Node(node_id, owner, incarnation, link, now)
        node.owner, node.incarnation, node.link = owner, incarnation, link
        node.linked_at, node.address, node.start_id = now, address, start_id
        node.assigned_revision, node.refused, node.closes_at, node.margin = 0, {}, None, None
        node.draining = node.kept_back = False
        node.heard(now)
        for model in node.standings:
            if served := self._models.get(model):
                served.left_by(node_id)
        return node

    def relink(self, now: float, node: Node, link: LinkId, address: str) -> None:
        """The same start has a new certificate: it is asked over the new link, and ends what runs on the old one."""
        node.leaving, node.link, node.linked_at, node.address = node.link, link, now, address
        node.assigned_revision, node.refused = 0, {}  # an assignment may have been under way
        node.heard(now)
        for model, offer in node.offers.items():
            # What runs on the old link counts as others' work, which the node's own reports tell the end of.
            moved = replace(offer, link=link, in_flight=0, in_flight_peak=0, outside=offer.live)
            node.offers[model] = moved
            self._models[model].add(moved)

    def report(self, now: float, node: Node, report: Report) -> None:
        """Take a node's word for what it offers. An older report that arrives late is dropped."""
        node.heard(now)
        if node.report and report.sequence and report.sequence < node.report.sequence:
            return
        node.report = report
        closes_in = report.terms.closes_in_seconds
        node.closes_at = None if closes_in is None else now + closes_in
        node.kept_back = bool(report.terms.kept_back)
        node.margin = margin(report)
        node.name, node.agent_version = report.host.name[:NAMES_LENGTH_MAX], report.agent_version[:NAMES_LENGTH_MAX]
        node.note(now)
        offered: dict[str, EngineReport] = {}
        self._name(node, frozenset(engine.model for engine in report.engines))
        for engine in report.engines:
            if engine.status.state is State.PAUSED and (standing := node.standings.get(engine.model)) is not None:
                standing.breaker.unloaded()
            if engine.status.state in SERVING:
                offered[engine.model] = engine
            elif (served := self._models.get(engine.model)) and (
                engine.status.state in COMING or node.node_id not in served.away
            ):
                served.left_by(node.node_id)
        for model in node.offers.keys() - offered.keys():
            self._withdraw(node, model)
        for model, engine in offered.items():
            self._offer(now, node, model, engine)
        coming = {engine.model for engine in report.engines if engine.status.state in COMING} - offered.keys()
        for model in node.named & self._models.keys():
            if model in coming:
                self._models[model].loads(now, node.node_id)
            else:
                self._models[model].loads_no_more(now, node.node_id, serves=model in offered)

    def drain(self, now: float, node: Node, hand_over_at: float) -> None:
        """A node takes nothing new; what it offered is remembered, since it withdraws that before it goes."""
        if not node.draining:
            node.lost_models = frozenset(node.offers)
        node.draining, node.hand_over_at = True, hand_over_at
        node.heard(now)

    def unlink(self, now: float, node: Node, why: str = "") -> None:
        """The node's link is gone; it offers nothing until it is back."""
        node.link = None
        node.lost_at, node.lost_why = now, why
        if not node.draining:
            node.lost_models = frozenset(node.offers)
        node.report = None
        node.note(now)
        for model in list(node.offers):
            self._withdraw(node, model)
        for model in node.named & self._models.keys():
            self._models[model].loads_no_more(now, node.node_id, serves=False)

    def _offer(self, now: float, node: Node, model: str, engine: EngineReport) -> None:
        known = node.offers.get(model)
        # An engine's next life has none of the attempts of the last.
        if known is not None and (known.engine.id, known.engine.life) == (engine.id, engine.life):
            self._models[model].reported(known, engine)
            return
        self._remember(model)  # Its name may have made room while nobody served it.
        if model not in self._models:
            return  # beyond MODELS_MAX
        self._models[model].named_by.add(node.node_id)
        assert node.link is not None, "only linked nodes report"
        standing = node.standing(model)
        standing.breaker.new_life(now)
        offer = node.offers[model] = Offer(node.node_id, node.link, engine, standing)
        offer.reported(engine)
        self._models[model].add(offer)

    def _remember(self, model: str) -> None:
        if model in self._models:
            return
        if len(self._models) >= MODELS_MAX:
            # Names that nobody serves make room: a node that invented ten thousand must not shut others out.
            self._forgotten += [name for name, served in self._models.items() if not served.offers]
            self._models = {name: served for name, served in self._models.items() if served.offers}
        if len(self._models) < MODELS_MAX:
            self._models[model] = Served()

    def _name(self, node: Node, models: frozenset[str]) -> None:
        """A node names these models now: what none names any more is forgotten."""
        gone = node.named - models
        for model in models - node.named:
            self._remember(model)
            if served := self._models.get(model):
                served.named_by.add(node.node_id)
        node.named = models
        for model in gone:
            if model in node.offers:
                self._withdraw(node, model)
            if (served := self._models.get(model)) is not None:
                served.named_by.discard(node.node_id)
                served.away.pop(node.node_id, None)
                served.loading.pop(node.node_id, None)
                if not served.named_by:
                    del self._models[model]
                    self._forgotten.append(model)

    def forgotten(self) -> list[str]:
        """Models that have been forgotten since this was last asked."""
        forgotten, self._forgotten = self._forgotten, []
        return [model for model in forgotten if model not in self._models]

    def _withdraw(self, node: Node, model: str) -> None:
        del node.offers[model]
        self._models[model].remove(node.node_id)

    def models(self) -> list[str]:
        """Every model a node has named since the coordinator started, by name."""
        return sorted(self._models)

    def knows(self, model: str) -> bool:
        """Whether any node has named it since the coordinator started."""
        return model in self._models

    def asked(self, now: float, model: str) -> None:
        """A caller wants it."""
        if served := self._models.get(model):
            served.asked_at = now

    def served(self, model: str) -> Served | None:
        """What is known of a model; None where nobody has named it."""
        return self._models.get(model)

    def nearest(self, model: str) -> tuple[str, ...]:
        """Up to three known names like this one, those that are served first."""
        served = (name for name, known in self._models.items() if known.offers)
        others = (name for name, known in self._models.items() if not known.offers)
        compared = list(islice(chain(served, others), NAMES_COMPARED_MAX))
        return tuple(difflib.get_close_matches(model[:NAMES_LENGTH_MAX], compared, n=3, cutoff=0.4))

    def offers(self, model: str) -> Iterator[tuple[Node, Offer]]:
        """The nodes that offer this model now."""
        served = self._models.get(model)
        for node_id, offer in served.offers.items() if served else ():
            yield self.nodes[node_id], offer

    def offer_of(self, node_id: NodeId, model: str, life: EngineLife) -> Offer | None:
        """What this life of an engine offers now; not what its next life does."""
        node = self.nodes.get(node_id)
        offer = node.offers.get(model) if node else None
        return offer if offer is not None and offer.life == life else None

    def seconds_to_probe(self, now: float, model: str) -> float:
        """Until the first of the engines that failed may be tried again; 0 where one may now."""
        breakers = [offer.standing.breaker for _, offer in self.next_offers(model)]
        return max(0.0, min((b.open_until - now for b in breakers if not b.closed), default=0.0))

    def count(self, model: str) -> int:
        """How many nodes offer it."""
        served = self._models.get(model)
        return len(served.offers) if served else 0

    def some_offers(self, model: str, count: int, dice: Dice) -> Iterator[tuple[Node, Offer]]:
        """All of them, where there are no more than `count`; else so many, drawn."""
        served = self._models.get(model)
        for offer in served.some(count, dice) if served else ():
            yield self.nodes[offer.node_id], offer

    def homes(self, model: str, affinity: Affinity, count: int) -> Iterator[tuple[Node, Offer]]:
        """Where a conversation is at home, the first first; of more than `count` so many."""
        served = self._models.get(model)
        for offer in served.homes(affinity, count) if served else ():
            yield self.nodes[offer.node_id], offer

    def next_offers(self, model: str) -> Iterator[tuple[Node, Offer]]:
        """All of them, where there are no more than LOOKED_MAX; else the next so many, going round."""
        served = self._models.get(model)
        for offer in served.next(LOOKED_MAX) if served else ():
            yield self.nodes[offer.node_id], offer

    def _away(self, model: str) -> Iterator[Node]:
        """Nodes that have named it and do not offer it now; of many the newest."""
        served = self._models.get(model)
        for node_id in islice(reversed(served.away), LOOKED_MAX) if served else ():
            yield self.nodes[node_id]

    def not_serving(self, model: str) -> Counter[str]:
        """How many linked nodes have the model and do not serve it now, by the state of their engine."""
        states = Counter[str]()
        for node in self._away(model):
            engines = node.report.engines if node.report and model not in node.offers else ()
            for engine in (engine for engine in engines if engine.model == model):
                states[shown_away(engine.status.state, node.kept_back, model in node.refused)] += 1
        return states

    def due_back(self, now: float, model: str) -> bool:
        """Whether some node that does not offer the model now may well do so in a moment."""
        return any(_is_due_back(now, node, model) for node in self._away(model))

    def silent(self, now: float) -> list[Node]:
        """Linked nodes that have said nothing for too long."""
        return [n for n in self.nodes.values() if n.link is not None and now - n.heard_at > SILENCE_SECONDS_MAX]

    def unlink_silent(self, now: float) -> list[tuple[Node, LinkId]]:
        """Unlink them, all before anything of one is asked of another; each with the link that it had."""
        gone = [(node, node.link) for node in self.silent(now) if node.link is not None]
        for node, _ in gone:
            self.unlink(now, node, "nothing was heard from it")
        return gone

    def closing(self, at: float) -> list[Node]:
        """Linked nodes whose owners want them back by then."""
        return [n for n in self.nodes.values() if n.link is not None and n.closes_at is not None and n.closes_at <= at]

    def draining(self) -> list[Node]:
        """Linked nodes that take nothing new."""
        return [n for n in self.nodes.values() if n.link is not None and n.draining]


def _is_due_back(now: float, node: Node, model: str) -> bool:
    if model not in node.standings:
        return False  # It never offered it, so that nobody knows how long it will take.
    if node.link is None:
        return not node.draining and model in node.lost_models and now - node.lost_at < BACK_SECONDS_MAX
    if node.report is None:
        return True
    engines = node.report.engines
    return any(engine.model == model and engine.status.state in COMING for engine in engines)
