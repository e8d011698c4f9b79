"""Requests that lost their node and wait for one: who waits, for how long, and what ends the wait."""

from __future__ import annotations

import pytest

from shrk_contract.terms import REPORT_INTERVAL_SECONDS, ResumeMethod, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.continuation import LOSSES
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.request import REQUEST_SECONDS_MAX
from shrk_coordinator.state.roster import BACK_SECONDS_MAX
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from support.states import PIN, a_report, ask, begun, fail, link_node, lose, new_link, only_start


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def dial(state: CoordinatorState, node: str, now: float) -> int:
    """A node dials and says hello; it has reported nothing yet."""
    link = new_link()
    state.handle(seen.NodeHello(now, node, link, 1, owner="o"))
    return link


def failed(effects: list[do.Effect]) -> list[do.FailRequest]:
    return [effect for effect in effects if isinstance(effect, do.FailRequest)]


@pytest.mark.parametrize("begins", [True, False])
def test_a_request_that_lost_its_only_node_is_asked_of_the_next_that_reports(
    state: CoordinatorState, begins: bool
) -> None:
    link_node(state, "a", "m")
    start = begun(state) if begins else only_start(ask(state)[1])
    assert lose(state, start, now=1.0) == [do.ReleaseStream(start.stream, start.link)]
    link = dial(state, "b", now=2.0)
    second = only_start(list(state.handle(seen.NodeReported(2.1, "b", link, a_report("m")))))
    assert (second.request_id, second.node_id, second.after) == (start.request_id, "b", "node_lost")
    assert (second.resume is not None) is begins
    assert not state.attempts.waiting


def test_a_node_that_dials_again_is_another_chance_for_what_it_lost(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    link = dial(state, "a", now=1.0)
    assert start.request_id in state.attempts.waiting
    second = only_start(list(state.handle(seen.NodeReported(1.1, "a", link, a_report("m", pin=PIN)))))
    assert (second.node_id, second.link, second.resume) == ("a", link, ResumeMethod.BY_IDS)


def test_an_engine_that_failed_is_not_asked_again_before_its_next_life(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    start = begun(state)
    assert fail(state, start) == [do.ReleaseStream(start.stream, start.link)]
    assert state.handle(seen.NodeReported(1.0, "a", link, a_report("m"))) == []
    second = only_start(list(state.handle(seen.NodeReported(2.0, "a", link, a_report("m", life=1)))))
    assert second.node_id == "a"


def test_a_node_that_is_back_without_the_model_changes_nothing(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    lose(state, start)
    link = dial(state, "b", now=1.0)
    assert state.handle(seen.NodeReported(1.0, "b", link, a_report("another"))) == []
    assert start.request_id in state.attempts.waiting


def test_a_request_that_waited_too_long_fails_with_what_it_had_lost(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    lose(state, start, now=1.0)
    assert state.handle(seen.Tick(1.0 + WAIT_SECONDS_MAX - 0.1)) == []
    [ended] = failed(list(state.handle(seen.Tick(1.0 + WAIT_SECONDS_MAX))))
    assert (ended.request_id, ended.failure.code, ended.attempts) == (start.request_id, "node_lost", 1)
    assert not state.attempts.waiting
    assert not state.attempts.requests


def test_no_request_waits_past_its_own_deadline(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    lose(state, start, now=REQUEST_SECONDS_MAX - 1)
    assert failed(list(state.handle(seen.Tick(REQUEST_SECONDS_MAX))))


def test_a_caller_that_leaves_while_its_request_waits_leaves_nothing_behind(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    lose(state, start)
    assert state.handle(seen.CallerLeft(1.0, start.request_id)) == []
    assert not state.attempts.waiting
    entry = state.journal.find(start.request_id)
    assert entry is not None
    assert entry.outcome is Outcome.CANCELLED


def test_of_those_that_have_not_begun_only_so_many_wait_and_the_others_hear_it_at_once(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m", slots=1000)
    for _ in range(WAITING_MAX + 3):
        ask(state)
    effects = list(state.handle(seen.LinkClosed(1.0, "a", link, "cut")))
    assert len(failed(effects)) == 3
    assert len(state.attempts.waiting) == WAITING_MAX


def test_those_that_have_begun_all_wait_and_all_go_on(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m", slots=1000)
    starts = [begun(state) for _ in range(WAITING_MAX * 2)]
    assert not failed(list(state.handle(seen.LinkClosed(1.0, "a", link, "cut"))))
    back = dial(state, "a", now=2.0)
    effects = state.handle(seen.NodeReported(2.0, "a", back, a_report("m")))
    went_on = [effect.request_id for effect in effects if isinstance(effect, do.StartAttempt)]
    assert went_on == [start.request_id for start in starts]


@pytest.mark.parametrize("code", sorted(LOSSES))
def test_what_nobody_heard_of_waits_after_a_loss_from_which_a_node_may_be_back(
    state: CoordinatorState, code: str
) -> None:
    link_node(state, "a", "m")
    waits = only_start(ask(state)[1])
    fail(state, waits, code)
    assert waits.request_id in state.attempts.waiting


@pytest.mark.parametrize("code", ["", "engine_nonsense", "node_broke_contract", "diverged"])
def test_what_nobody_heard_of_does_not_wait_after_anything_else(state: CoordinatorState, code: str) -> None:
    link_node(state, "a", "m")
    ends = only_start(ask(state)[1])
    assert failed(fail(state, ends, code))
    assert ends.request_id not in state.attempts.waiting


@pytest.mark.parametrize("why", ["restarting", "redialling"])
def test_what_nobody_heard_of_waits_after_any_failure_while_another_node_is_due_back(
    state: CoordinatorState, why: str
) -> None:
    link_node(state, "a", "m")
    link = link_node(state, "b", "m")
    start = only_start(ask(state)[1])
    if start.node_id == "b":
        state.handle(seen.CallerLeft(0.0, start.request_id))
        start = only_start(ask(state)[1])
    assert start.node_id == "a"
    if why == "restarting":
        state.handle(seen.NodeReported(0.0, "b", link, a_report("m", state=State.STARTING)))
    else:
        state.handle(seen.LinkClosed(0.0, "b", link, "cut"))
    assert not failed(fail(state, start, "engine_nonsense"))
    back = link if why == "restarting" else dial(state, "b", now=1.0)
    second = only_start(list(state.handle(seen.NodeReported(1.0, "b", back, a_report("m", life=1)))))
    assert (second.request_id, second.node_id, second.after) == (start.request_id, "b", "engine_nonsense")


def test_nobody_waits_for_a_node_that_has_long_been_gone(state: CoordinatorState) -> None:
    state.handle(seen.LinkClosed(0.0, "a", link_node(state, "a", "m"), "cut"))
    link_node(state, "b", "m")
    start = only_start(ask(state, now=BACK_SECONDS_MAX)[1])
    assert failed(fail(state, start, "engine_nonsense", now=BACK_SECONDS_MAX))


def test_every_loss_begins_a_new_wait(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    current = begun(state)
    now = 0.0
    for _ in range(3):
        lose(state, current, now=now)
        now += WAIT_SECONDS_MAX - 1
        link = dial(state, "a", now=now)
        current = only_start(list(state.handle(seen.NodeReported(now, "a", link, a_report("m")))))
        state.handle(seen.FirstPieceDelivered(now, current.stream))


def test_the_wait_is_longer_than_a_node_takes_to_report() -> None:
    assert WAIT_SECONDS_MAX > REPORT_INTERVAL_SECONDS
