"""A second link of the same start, with a new certificate; and an identity that two machines use."""

from __future__ import annotations

import pytest

from shrk_contract.terms import SILENCE_SECONDS_MAX, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import QUIET_SECONDS_MAX, CoordinatorState
from shrk_coordinator.state.starts import ALONE_SECONDS
from shrk_coordinator.state.verdict import CheckName, judge, state_of
from support.states import ask, begun, link_node, new_link, only_start


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def hello(now: float, link: int, start_id: bytes = b"", incarnation: int = 1, renews: bool = False) -> seen.NodeHello:
    where = "192.0.2.1" if start_id != b"b" else "192.0.2.2"
    return seen.NodeHello(now, "a", link, incarnation, "o", where, start_id=start_id, renews=renews)


def renew(state: CoordinatorState, now: float = 1.0) -> int:
    """Node a opens a link with its new certificate."""
    link = new_link()
    assert state.handle(hello(now, link, renews=True)) == [do.WelcomeNode("a", link)]
    return link


def test_a_renewed_link_takes_what_is_new_and_the_old_one_ends_what_runs(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    running = begun(state)
    new = renew(state)
    assert only_start(ask(state)[1]).link == new
    state.handle(seen.LastTokenDelivered(2.0, running.stream, 5))
    assert not any(isinstance(e, do.FailRequest) for e in state.handle(seen.AttemptFinished(2.0, running.stream, 5)))
    assert running.request_id not in state.attempts.requests
    assert state.handle(seen.LinkClosed(3.0, "a", old, "left")) == []
    assert state.roster.nodes["a"].link == new


def test_what_runs_on_the_old_link_counts_as_load_until_the_node_reports(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    begun(state)
    renew(state)
    [offer] = state.roster.nodes["a"].offers.values()
    assert (offer.in_flight, offer.live) == (0, 1)


def test_an_old_link_that_breaks_takes_only_its_own_attempts_along(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    lost = only_start(ask(state)[1])
    new = renew(state)
    kept = only_start(ask(state)[1])
    again = only_start(list(state.handle(seen.LinkClosed(2.0, "a", old, "cut"))))
    assert (lost.link, again.request_id, again.link) == (old, lost.request_id, new)
    assert kept.stream in state.attempts.by_stream


def test_a_link_that_does_not_renew_replaces_all_others_at_once(state: CoordinatorState) -> None:
    old, new = link_node(state, "a", "m"), renew(state)
    third = new_link()
    effects = list(state.handle(hello(2.0, third, incarnation=2)))
    assert {e.link for e in effects if isinstance(e, do.CloseLink)} == {old, new}
    assert effects[-1] == do.WelcomeNode("a", third)


def test_a_second_renewal_ends_the_first_old_link(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    renew(state)
    third = new_link()
    effects = state.handle(hello(2.0, third, renews=True))
    assert effects == [do.CloseLink(old, do.Superseded()), do.WelcomeNode("a", third)]


def test_another_start_cannot_pass_for_a_renewal(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    link = new_link()
    effects = state.handle(hello(1.0, link, incarnation=2, renews=True))
    assert effects == [do.CloseLink(old, do.Superseded()), do.WelcomeNode("a", link)]


def test_a_node_that_falls_silent_loses_both_links(state: CoordinatorState) -> None:
    old, new = link_node(state, "a", "m"), renew(state)
    effects = state.handle(seen.Tick(2.0 + SILENCE_SECONDS_MAX))
    assert {e.link for e in effects if isinstance(e, do.CloseLink)} == {old, new}


def test_what_comes_over_the_old_link_shows_that_the_node_lives(state: CoordinatorState) -> None:
    old = link_node(state, "a", "m")
    begun(state)
    renew(state)
    later = 1.0 + QUIET_SECONDS_MAX
    state.handle(seen.Tick(later - 0.5))
    state.handle(seen.NodeHeard(later, "a", old))
    state.handle(seen.Tick(later + 0.5))
    assert not state.roster.nodes["a"].quiet


# --- copied identities -----------------------------------------------------------------------------------


def taking_turns(state: CoordinatorState) -> list[do.Effect]:
    """Two machines with node a's identity, until they are found out; what followed last."""
    effects: list[do.Effect] = []
    for now, start_id in ((0.0, b"a"), (1.0, b"b"), (61.0, b"a"), (121.0, b"a")):
        incarnation = 5 if start_id == b"a" else 6
        effects = list(state.handle(hello(now, new_link(), start_id, incarnation)))
    return effects


def test_two_machines_that_take_turns_are_both_quarantined(state: CoordinatorState) -> None:
    effects = taking_turns(state)
    words = "two machines use its identity (they dial from 192.0.2.1 and 192.0.2.2)"
    assert [e.why for e in effects if isinstance(e, do.CloseLink)] == [do.Copied(words)] * 2
    node = state.roster.nodes["a"]
    verdict = judge(state.roster, node, 122.0)
    assert state_of(node) is verdict.state is State.QUARANTINED
    assert verdict.reason == words
    assert verdict.next_action.startswith("Enrol one of the two anew")
    assert [check.name for check in verdict.checks if not check.passed] == [CheckName.CONNECTED, CheckName.IDENTITY]
    assert verdict.since == 121.0
    [refused] = state.handle(hello(122.0, 999, b"b", 6))
    assert isinstance(refused, do.CloseLink)


def test_the_machine_that_goes_on_alone_comes_back(state: CoordinatorState) -> None:
    taking_turns(state)
    [welcome] = state.handle(hello(122.0 + ALONE_SECONDS, 999, b"b", 6))
    assert welcome == do.WelcomeNode("a", 999)
    assert state.roster.nodes["a"].state is State.STARTING


def test_what_ran_on_a_quarantined_node_goes_on_elsewhere(state: CoordinatorState) -> None:
    state.handle(hello(0.0, new_link(), b"a", 5))
    link = link_node(state, "a", "m", now=0.5, incarnation=6)
    running = only_start(ask(state, now=0.5)[1])
    assert running.link == link
    link_node(state, "other", "m", now=0.5)
    assert state.handle(hello(1.0, 998, b"a", 5)) == [do.CloseLink(998, do.Superseded())]
    moved = only_start(list(state.handle(hello(2.0, 999, b"a", 5))))
    assert (moved.request_id, moved.node_id) == (running.request_id, "other")
