"""The roster: every node the coordinator knows, its link, and what it offers.

    (unknown) --hello--> linked --closed / silent--> offline --hello--> linked

A node offers models only while it is linked, reports them as serving and is not draining. Silence longer than
SILENCE_SECONDS_MAX counts as a lost link: keepalive notices a cut path, silence notices a frozen agent.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from shrk_contract.terms import SERVING, SILENCE_SECONDS_MAX, EngineReport, Report, State
from shrk_coordinator.state.events import LinkId, NodeId

#: Model names are kept after their last node left, so that callers hear "no node now" and not "unknown".
#: The bound keeps a node that invents names from filling memory.
MODELS_MAX = 10_000
#: An engine in which a stream stalled comes last for this long, unless it shows before that it moves: if it hung, its
#: own agent has noticed within 13 seconds and ended it.
STALLED_SECONDS = 15.0
#: A link that was lost is dialled anew within a second or two; after this nobody waits for it.
BACK_SECONDS_MAX = 10.0
#: States of an engine that will serve before long, unless something is wrong with it.
_COMING = frozenset({State.STARTING, State.LOADING})
#: A caller's typing error may not cost more than a few milliseconds of everybody's time.
NAMES_COMPARED_MAX = 200
NAMES_LENGTH_MAX = 100


@dataclass(frozen=True, slots=True)
class EngineLife:
    """One engine from one start to its end, on one link: what failed a request here may serve it after a restart."""

    link: LinkId
    engine: str
    life: int


@dataclass(slots=True)
class Offer:
    """One engine of one node, as placement sees it."""

    node_id: NodeId
    link: LinkId
    engine: EngineReport
    #: Attempts of this coordinator under way there.
    in_flight: int = 0
    #: Attempts ever placed there; breaks ties so that idle nodes take turns.
    placed: int = 0
    #: When a stream stalled here, of which nothing has come since: asked only where nobody else is.
    stalled_at: float | None = None

    @property
    def life(self) -> EngineLife:
        """Which start of which engine this is."""
        return EngineLife(self.link, self.engine.id, self.engine.life)

    @property
    def load(self) -> float:
        """In-flight attempts per slot."""
        return self.in_flight / max(1, self.engine.slots)


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
    draining: bool = False
    #: While draining: from when on what still runs there is moved elsewhere.
    hand_over_at: float = 0.0
    report: Report | None = None
    offers: dict[str, Offer] = field(default_factory=dict)
    #: When its link was lost, and what it offered then.
    lost_at: float = 0.0
    lost_models: frozenset[str] = frozenset()

    def heard(self, now: float) -> None:
        """Something came from it."""
        self.heard_at, self.quiet = now, False

    @property
    def state(self) -> State:
        """The node's state as the coordinator sees it."""
        if self.link is None:
            return State.OFFLINE
        if self.draining:
            return State.DRAINING
        return self.report.status.state if self.report else State.STARTING


class Roster:
    """All nodes, and an index from model to the offers of it."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Node] = {}
        self._offers: dict[str, dict[NodeId, Offer]] = {}

    def link(self, now: float, node_id: NodeId, link: LinkId, incarnation: int, owner: str) -> Node:
        """A node is linked, whether new or back."""
        node = self.nodes.get(node_id)
        if node is None:
            node = self.nodes[node_id] = Node(node_id, owner, incarnation, link, now)
        node.owner, node.incarnation, node.link = owner, incarnation, link
        node.heard(now)
        node.draining = False
        return node

    def report(self, now: float, node: Node, report: Report) -> None:
        """Take a node's word for what it offers. An older report that arrives late is dropped."""
        node.heard(now)
        if node.report and report.sequence and report.sequence < node.report.sequence:
            return
        node.report = report
        offered: dict[str, EngineReport] = {}
        for engine in report.engines:
            self._remember(engine.model)
            if engine.status.state in SERVING:
                offered[engine.model] = engine
        for model in node.offers.keys() - offered.keys():
            self._withdraw(node, model)
        for model, engine in offered.items():
            self._offer(now, node, model, engine)

    def unlink(self, now: float, node: Node) -> None:
        """The node's link is gone; it offers nothing until it is back."""
        node.link = None
        node.lost_at, node.lost_models = now, frozenset(node.offers)
        node.report = None
        for model in list(node.offers):
            self._withdraw(node, model)

    def _offer(self, now: float, node: Node, model: str, engine: EngineReport) -> None:
        known = node.offers.get(model)
        # An engine's next life has none of the attempts of the last.
        if known is not None and (known.engine.id, known.engine.life) == (engine.id, engine.life):
            if known.stalled_at is not None and now - known.stalled_at > STALLED_SECONDS:
                known.stalled_at = None
            known.engine = engine
            return
        if model not in self._offers:
            return  # beyond MODELS_MAX
        assert node.link is not None, "only linked nodes report"
        self._offers[model][node.node_id] = node.offers[model] = Offer(node.node_id, node.link, engine)

    def _remember(self, model: str) -> None:
        if model in self._offers:
            return
        if len(self._offers) >= MODELS_MAX:
            # Names that nobody serves make room: a node that invented ten thousand must not shut others out.
            self._offers = {name: offers for name, offers in self._offers.items() if offers}
        if len(self._offers) < MODELS_MAX:
            self._offers[model] = {}

    def _withdraw(self, node: Node, model: str) -> None:
        del node.offers[model]
        del self._offers[model][node.node_id]

    def models(self) -> list[str]:
        """Every model a node has named since the coordinator started, by name."""
        return sorted(self._offers)

    def knows(self, model: str) -> bool:
        """Whether any node has named it since the coordinator started."""
        return model in self._offers

    def nearest(self, model: str) -> tuple[str, ...]:
        """Up to three known names like this one, those that are served first."""
        by_service = sorted(self._offers, key=lambda name: (not self._offers[name], name))
        return tuple(
            difflib.get_close_matches(model[:NAMES_LENGTH_MAX], by_service[:NAMES_COMPARED_MAX], n=3, cutoff=0.4)
        )

    def offers(self, model: str) -> Iterator[tuple[Node, Offer]]:
        """The nodes that offer this model now."""
        for node_id, offer in self._offers.get(model, {}).items():
            yield self.nodes[node_id], offer

    def not_serving(self, model: str) -> Counter[str]:
        """How many linked nodes have the model and do not serve it now, by the state of their engine."""
        states: Counter[str] = Counter()
        for node in self.nodes.values():
            for engine in node.report.engines if node.report else ():
                if engine.model == model and model not in node.offers:
                    states[engine.status.state] += 1
        return states

    def due_back(self, now: float, model: str) -> bool:
        """Whether some node that does not offer the model now may well do so in a moment."""
        return any(_is_due_back(now, node, model) for node in self.nodes.values())

    def silent(self, now: float) -> list[Node]:
        """Linked nodes that have said nothing for too long."""
        return [n for n in self.nodes.values() if n.link is not None and now - n.heard_at > SILENCE_SECONDS_MAX]

    def unlink_silent(self, now: float) -> list[LinkId]:
        """Unlink them, all before anything of one is asked of another; the links they had."""
        gone = [(node, node.link) for node in self.silent(now) if node.link is not None]
        for node, _ in gone:
            self.unlink(now, node)
        return [link for _, link in gone]

    def draining(self) -> list[Node]:
        """Linked nodes that take nothing new."""
        return [n for n in self.nodes.values() if n.link is not None and n.draining]


def _is_due_back(now: float, node: Node, model: str) -> bool:
    if node.link is None:
        return model in node.lost_models and now - node.lost_at < BACK_SECONDS_MAX
    engines = node.report.engines if node.report else ()
    return any(engine.model == model and engine.status.state in _COMING for engine in engines)
