"""The one door: `CoordinatorState.handle(event) -> effects`.

It composes the roster and the dispatch of requests. Pieces of answers never pass here, only transitions do: asked,
accepted, first piece, last token, finished, failed, lost, stalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from shrk_contract.terms import Fault, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.assigning import Assigning
from shrk_coordinator.state.attempts import Attempts
from shrk_coordinator.state.dice import Dice, InTurn
from shrk_coordinator.state.dispatch import Dispatch
from shrk_coordinator.state.effects import Effect
from shrk_coordinator.state.events import Event, FailureDetail
from shrk_coordinator.state.journal import Journal
from shrk_coordinator.state.probing import Probing
from shrk_coordinator.state.request import Attempt
from shrk_coordinator.state.roster import Node, Roster

#: A node that works for someone gives a sign of life every second; its attempts are moved after this. Its link lives
#: on for SILENCE_SECONDS_MAX: it may have been the line.
QUIET_SECONDS_MAX = 4.0
#: The coordinator itself was held up when two ticks are this far apart: then it may not have heard what was said.
TICK_SECONDS_MAX = 1.0
#: A node that stops lets run what runs; what is still left this long before its end is moved.
HAND_OVER_SECONDS = 5.0


#: What a node that closes is handed over for, by its own state; else for its owner.
_WHY_CLOSING = {State.COOLING: "the node is too hot"}


class CoordinatorState:
    """All that the coordinator knows and decides. Change it only through `handle`."""

    def __init__(self, dice: Dice | None = None, term: int = 0) -> None:
        """`dice`: draws the nodes that are looked at where there are many. `term`: grows with every start of a
        coordinator; nodes obey the assignments of the newest."""
        self.roster = Roster()
        self._dispatch = Dispatch(self.roster, dice or InTurn())
        self.assigning = Assigning(self.roster, self.attempts.waiting, term)
        self._probing = Probing(self.roster, self._dispatch.asking)
        self._ticked_at = 0.0

    @property
    def attempts(self) -> Attempts:
        """All requests under way."""
        return self._dispatch.attempts

    @property
    def journal(self) -> Journal:
        """What became of each request."""
        return self._dispatch.journal

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in one fact; return what the world should do about it, in order."""
        effects = self._handle(event)
        # Whatever ended made room for those that wait.
        return [*effects, *self._dispatch.asking.fill_freed(event.now)]

    def _handle(self, event: Event) -> Sequence[Effect]:
        dispatch = self._dispatch
        match event:
            case seen.NodeHello():
                return self._hello(event)
            case seen.NodeReported():
                return self._reported(event)
            case seen.NodeAssigned(now, node_id, link, revision, outcomes):
                if node := self._linked(node_id, link):
                    node.assigned_revision = revision
                    # One that stops obeys nothing, which says nothing of its engines.
                    stops = node.state is State.DRAINING
                    node.refused = {} if stops else {o.model: o.reason for o in outcomes if not o.obeyed}
                    self.assigning.changed(now, node)
                return []
            case seen.NodeHeard(now, node_id, link):
                if node := self._of(node_id, link):
                    node.heard(now)
                return []
            case seen.NodeDraining():
                return self._draining(event)
            case seen.LinkClosed(now, node_id, link, reason):
                return self._link_lost(now, node_id, link, reason)
            case seen.RequestArrived():
                return dispatch.arrived(event)
            case seen.ProbeArrived():
                return self._probing.arrived(event)
            case seen.HedgeDue(now, stream):
                return dispatch.hedge_due(now, stream)
            case seen.RaceWon(now, stream):
                return dispatch.race_won(now, stream)
            case seen.AttemptAccepted(now, stream):
                return dispatch.accepted(now, stream)
            case seen.AttemptRejected(now, stream, _):
                return dispatch.rejected(now, stream)
            case seen.FirstPieceDelivered(now, stream, index):
                return dispatch.first_piece(now, stream, index)
            case seen.IdsUnknown(_, stream):
                return dispatch.ids_unknown(stream)
            case seen.LastTokenDelivered(now, stream, tokens):
                return dispatch.last_token(now, stream, tokens)
            case seen.AttemptFinished(now, stream, tokens):
                return dispatch.finished(now, stream, tokens)
            case seen.AttemptFailed(now, stream, failure):
                return dispatch.failed(now, stream, failure)
            case seen.AttemptBroken(now, stream, failure):
                return dispatch.broken(now, stream, failure)
            case seen.AttemptStalled(now, stream):
                return dispatch.stalled(now, stream)
            case seen.CallerLeft(now, request_id):
                return dispatch.caller_left(now, request_id)
            case seen.Tick(now):
                return self._tick(now)
            case seen.Reconcile(now):
                return self.assigning.run(now)
            case _:
                assert_never(event)

    # --- nodes -----------------------------------------------------------------------------------

    def _linked(self, node_id: seen.NodeId, link: seen.LinkId) -> Node | None:
        """The node, if this is still its link; frames of a replaced link change nothing."""
        node = self.roster.nodes.get(node_id)
        return node if node is not None and node.link == link else None

    def _of(self, node_id: seen.NodeId, link: seen.LinkId) -> Node | None:
        """The node, if this is its link or the one that it leaves."""
        node = self.roster.nodes.get(node_id)
        return node if node is not None and link in node.links() else None

    def _hello(self, event: seen.NodeHello) -> list[Effect]:
        known = self.roster.nodes.get(event.node_id)
        start = (event.incarnation, event.start_id)
        effects: list[Effect] = []
        if known is not None:
            linked = known.link is not None
            if not known.starts.dialled(event.now, start, event.address, known.start if linked else None):
                words = known.starts.words()
                effects += self._end_links(event.now, known, do.Copied(words), words)
                known.note(event.now)
                return [*effects, do.CloseLink(event.link, do.Copied(words))]
            if linked and event.incarnation < known.incarnation:
                return [do.CloseLink(event.link, do.Superseded())]
            if linked and event.renews and start == known.start:
                effects += self._end_leaving(event.now, known)
                self.roster.relink(event.now, known, event.link, event.address)
                return [*effects, do.WelcomeNode(event.node_id, event.link)]
            effects += self._end_links(event.now, known, do.Superseded(), "the node dialled again")
        node = self.roster.link(
            event.now, event.node_id, event.link, event.incarnation, event.owner, event.address, event.start_id
        )
        if known is None:
            node.starts.dialled(event.now, start, event.address, None)
        return [*effects, do.WelcomeNode(event.node_id, event.link)]

    def _end_links(self, now: float, node: Node, why: do.LinkEnd, reason: str) -> list[Effect]:
        effects: list[Effect] = []
        for link in node.links():
            effects += [do.CloseLink(link, why), *self._link_lost(now, node.node_id, link, reason)]
        return effects

    def _end_leaving(self, now: float, node: Node) -> list[Effect]:
        """An older link than the one before has had time enough."""
        if (link := node.leaving) is None:
            return []
        return [do.CloseLink(link, do.Superseded()), *self._link_lost(now, node.node_id, link, "it was replaced twice")]

    def _reported(self, event: seen.NodeReported) -> list[Effect]:
        node = self._linked(event.node_id, event.link)
        if node is None:
            return []
        self.roster.report(event.now, node, event.report)
        self.assigning.changed(event.now, node)
        self._dispatch.asking.news(node.offers.values())
        return []

    def _link_lost(self, now: float, node_id: seen.NodeId, link: seen.LinkId, reason: str) -> list[Effect]:
        if node := self._linked(node_id, link):
            self.roster.unlink(now, node, reason)
            self.assigning.changed(now, node)
        elif (node := self.roster.nodes.get(node_id)) is not None and node.leaving == link:
            node.leaving = None
        return self._lost_on(now, link, reason)

    def _lost_on(self, now: float, link: seen.LinkId, reason: str) -> list[Effect]:
        lost = FailureDetail(Fault.NODE, f"the node was lost: {reason}", code="node_lost")
        effects: list[Effect] = []
        for attempt in self.attempts.on_link(link):
            # One that was lost together with its rival goes with it.
            if attempt.stream in self.attempts.by_stream:
                effects += self._dispatch.over(now, attempt, lost)
        return effects

    def _draining(self, event: seen.NodeDraining) -> list[Effect]:
        node = self._linked(event.node_id, event.link)
        if node is None:
            return []
        self.roster.drain(event.now, node, event.now + max(0.0, event.seconds - HAND_OVER_SECONDS))
        self.assigning.changed(event.now, node)
        return self._hand_over_draining(event.now, node)

    # --- moving attempts while their node still lives ------------------------------------------------

    def _hand_over_draining(self, now: float, node: Node) -> list[Effect]:
        return [] if now < node.hand_over_at else self._hand_over_all(now, node, "the node is stopping")

    def _hand_over_all(self, now: float, node: Node, why: str) -> list[Effect]:
        effects: list[Effect] = []
        for attempt in (attempt for link in node.links() for attempt in self.attempts.on_link(link)):
            effects += self._dispatch.hand_over(now, attempt, "node_draining", why)
        return effects

    def _hand_over_quiet(self, now: float) -> list[Effect]:
        moving: list[Attempt] = []
        for link in self.attempts.links():
            [first, *_] = attempts = self.attempts.on_link(link)
            node = self._of(first.node_id, link)
            # An idle node speaks only every few seconds: what counts is how long it has worked and said nothing.
            if node is not None and now - max(node.heard_at, first.begun_at) > QUIET_SECONDS_MAX:
                node.quiet = True
                moving += attempts
        effects: list[Effect] = []
        for attempt in moving:
            effects += self._dispatch.hand_over(now, attempt, "node_silent", "nothing is heard from the node")
        return effects

    # --- time ------------------------------------------------------------------------------------

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node, link in self.roster.unlink_silent(now):
            self.assigning.changed(now, node)
            effects += [do.CloseLink(link, do.Silent()), *self._lost_on(now, link, "nothing was heard from it")]
            if (leaving := node.leaving) is not None:
                node.leaving = None
                effects += [
                    do.CloseLink(leaving, do.Silent()),
                    *self._lost_on(now, leaving, "nothing was heard from it"),
                ]
        effects += self._dispatch.end_overdue(now)
        if now - self._ticked_at <= TICK_SECONDS_MAX:
            effects += self._hand_over_quiet(now)
        for node in self.roster.draining():
            effects += self._hand_over_draining(now, node)
        for node in self.roster.closing(now + HAND_OVER_SECONDS):
            effects += self._hand_over_all(now, node, _WHY_CLOSING.get(node.state, "its owner wants the node back"))
        self._ticked_at = now
        effects += self._dispatch.asking.look_again(now)
        return [*effects, *self._dispatch.give_up_waiting(now)]
