"""Attempts that are moved while their node still lives: it drains, is silent, or a stream of it has stalled."""

from __future__ import annotations

import pytest

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import (
    HAND_OVER_SECONDS,
    QUIET_SECONDS_MAX,
    TICK_SECONDS_MAX,
    CoordinatorState,
)
from shrk_coordinator.state.request import FAILURES_MAX
from support.states import PIN, a_report, ask, begun, fail, link_node, only_start

#: What a driver's ticks are apart, and what a working node's signs of life are.
STEP = 0.25


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def pass_time(state: CoordinatorState, since: float, until: float, *heard: tuple[str, int]) -> list[do.Effect]:
    """Ticks as they come, while these nodes are heard; what follows."""
    effects: list[do.Effect] = []
    for step in range(1, round((until - since) / STEP) + 1):
        now = since + step * STEP
        for node, link in heard:
            state.handle(seen.NodeHeard(now, node, link))
        effects += state.handle(seen.Tick(now))
    return effects


# --- drain -----------------------------------------------------------------------------------------------


def test_a_node_that_stops_at_once_hands_over_at_once(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    link_node(state, "b", "m", pin=PIN)
    effects = list(state.handle(seen.NodeDraining(1.0, "a", start.link, 0.0)))
    assert effects[0] == do.CancelAttempt(start.stream, start.link, "the node is stopping")
    second = only_start(effects)
    assert (second.node_id, second.resume, second.after) == ("b", ResumeMethod.BY_IDS, "node_draining")


def test_a_node_with_time_lets_run_what_runs_and_hands_over_the_rest_before_its_end(state: CoordinatorState) -> None:
    draining = link_node(state, "a", "m")
    start = begun(state)
    other = link_node(state, "b", "m")
    assert state.handle(seen.NodeDraining(0.0, "a", draining, 60.0)) == []
    both = (("a", draining), ("b", other))
    assert pass_time(state, 0.0, 60.0 - HAND_OVER_SECONDS - STEP, *both) == []
    second = only_start(pass_time(state, 60.0 - HAND_OVER_SECONDS - STEP, 60.0 - HAND_OVER_SECONDS, *both))
    assert (second.request_id, second.node_id) == (start.request_id, "b")


def test_where_there_is_no_other_node_it_stays_and_moves_as_soon_as_there_is_one(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    assert state.handle(seen.NodeDraining(1.0, "a", start.link, 0.0)) == []
    assert pass_time(state, 1.0, 2.0, ("a", start.link)) == []
    link_node(state, "b", "m", now=2.0)
    assert only_start(list(state.handle(seen.Tick(2.1)))).node_id == "b"


def test_what_a_draining_node_finishes_is_not_moved(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    state.handle(seen.LastTokenDelivered(0.0, start.stream))
    assert state.handle(seen.NodeDraining(0.0, "a", start.link, 0.0)) == []


def test_what_a_draining_node_still_reads_begins_anew_elsewhere(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = only_start(ask(state)[1])
    state.handle(seen.AttemptAccepted(0.0, start.stream))
    link_node(state, "b", "m")
    second = only_start(list(state.handle(seen.NodeDraining(0.0, "a", start.link, 0.0))))
    assert second.resume is None


def test_only_the_node_that_drains_hands_over(state: CoordinatorState) -> None:
    a, b = link_node(state, "a", "m"), link_node(state, "b", "m")
    starts = {start.node_id: start for start in (begun(state), begun(state))}
    moved = only_start(list(state.handle(seen.NodeDraining(0.0, "a", a, 0.0))))
    assert moved.request_id == starts["a"].request_id
    assert state.attempts.by_stream[starts["b"].stream].link == b
    assert state.handle(seen.NodeDraining(0.0, "b", a, 0.0)) == []


# --- silence ------------------------------------------------------------------------------------------------


def test_a_node_that_works_and_is_not_heard_hands_over_and_keeps_its_link(state: CoordinatorState) -> None:
    silent = link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    other = ("b", link_node(state, "b", "m", pin=PIN))
    assert pass_time(state, 0.0, QUIET_SECONDS_MAX, other) == []
    effects = pass_time(state, QUIET_SECONDS_MAX, QUIET_SECONDS_MAX + STEP, other)
    assert isinstance(effects[0], do.CancelAttempt)
    second = only_start(effects)
    assert (second.node_id, second.after) == ("b", "node_silent")
    assert second.request_id == start.request_id
    assert state.roster.nodes["a"].link == silent


def test_after_a_late_tick_nobody_counts_as_silent(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    begun(state)
    other = ("b", link_node(state, "b", "m"))
    pass_time(state, 0.0, 1.0, other)
    late = QUIET_SECONDS_MAX + 1.0 + TICK_SECONDS_MAX
    assert state.handle(seen.Tick(late)) == []
    # What had been said meanwhile was read by then; what has not come by the next tick is silence.
    assert only_start(list(state.handle(seen.Tick(late + STEP)))).node_id == "b"


def test_an_idle_node_is_not_silent_when_it_has_just_been_asked(state: CoordinatorState) -> None:
    idle = link_node(state, "a", "m")
    other = ("b", link_node(state, "b", "m"))
    state.roster.nodes["b"].offers["m"].in_flight = 1
    assert pass_time(state, 0.0, 4.5, other) == []
    start = only_start(ask(state, now=4.5)[1])
    assert start.node_id == "a"
    assert pass_time(state, 4.5, 4.5 + QUIET_SECONDS_MAX, other) == []
    state.handle(seen.NodeHeard(4.5 + QUIET_SECONDS_MAX, "a", idle))
    assert pass_time(state, 4.5 + QUIET_SECONDS_MAX, 9.0, other) == []


def test_a_silent_node_is_not_asked_though_it_is_idle_now_until_it_is_heard(state: CoordinatorState) -> None:
    silent = link_node(state, "a", "m")
    begun(state)
    other = ("b", link_node(state, "b", "m"))
    now = QUIET_SECONDS_MAX + STEP
    pass_time(state, 0.0, now, other)
    assert [only_start(ask(state, now=now)[1]).node_id for _ in range(3)] == ["b"] * 3
    state.handle(seen.NodeHeard(now, "a", silent))
    assert only_start(ask(state, now=now)[1]).node_id == "a"


def test_where_all_are_silent_it_may_be_our_own_line_and_nothing_is_moved(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    for _ in range(6):
        begun(state)
    assert pass_time(state, 0.0, QUIET_SECONDS_MAX + 1.0) == []


def test_a_silent_node_keeps_its_attempt_where_there_is_no_other(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    assert pass_time(state, 0.0, QUIET_SECONDS_MAX + 1.0) == []
    assert start.stream in state.attempts.by_stream


# --- stall ----------------------------------------------------------------------------------------------------


def test_a_stalled_stream_goes_on_elsewhere(state: CoordinatorState) -> None:
    link_node(state, "a", "m", pin=PIN)
    start = begun(state)
    link_node(state, "b", "m", pin=PIN)
    effects = list(state.handle(seen.AttemptStalled(1.0, start.stream)))
    assert isinstance(effects[0], do.CancelAttempt)
    second = only_start(effects)
    assert (second.node_id, second.resume, second.after) == ("b", ResumeMethod.BY_IDS, "node_stalled")


def test_a_stalled_stream_stays_where_there_is_no_other_node_and_may_still_end_there(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    assert state.handle(seen.AttemptStalled(1.0, start.stream)) == []
    assert state.handle(seen.AttemptStalled(2.0, start.stream)) == []
    assert state.handle(seen.AttemptFinished(3.0, start.stream, 9)) == [do.ReleaseStream(start.stream, start.link)]


def test_a_node_that_stalled_is_asked_last_until_its_next_first_piece(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    state.handle(seen.AttemptStalled(1.0, start.stream))
    busy = [only_start(ask(state)[1]) for _ in range(2)]
    assert {attempt.node_id for attempt in busy} == {"b"}
    # Where there is nobody else it is asked, and its first piece clears its name.
    link = state.roster.nodes["b"].link
    assert link is not None
    state.handle(seen.LinkClosed(2.0, "b", link, "cut"))
    on_a = [attempt for attempt in state.attempts.by_stream.values() if attempt.node_id == "a"]
    state.handle(seen.FirstPieceDelivered(3.0, on_a[0].stream))
    link_node(state, "c", "m", now=3.0)
    state.roster.nodes["c"].offers["m"].in_flight = 4
    assert only_start(ask(state, now=3.0)[1]).node_id == "a"


@pytest.mark.parametrize("tells", ["nothing", "accepted", "last token"])
def test_only_a_stream_between_its_first_and_its_last_token_can_stall(state: CoordinatorState, tells: str) -> None:
    link_node(state, "a", "m")
    start = begun(state) if tells == "last token" else only_start(ask(state)[1])
    if tells == "accepted":
        state.handle(seen.AttemptAccepted(0.0, start.stream))
    if tells == "last token":
        state.handle(seen.LastTokenDelivered(0.0, start.stream))
    link_node(state, "b", "m")
    assert state.handle(seen.AttemptStalled(1.0, start.stream)) == []


# --- all of them ------------------------------------------------------------------------------------------------


def test_nothing_is_moved_back_to_a_node_that_it_left(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    second = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    state.handle(seen.FirstPieceDelivered(1.0, second.stream))
    assert state.handle(seen.AttemptStalled(2.0, second.stream)) == []


def test_the_slot_of_what_was_moved_is_free_and_the_other_node_has_it(state: CoordinatorState) -> None:
    link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    state.handle(seen.AttemptStalled(1.0, start.stream))
    assert {offer.node_id: offer.in_flight for _, offer in state.roster.offers("m")} == {"a": 0, "b": 1}


def test_an_attempt_is_not_moved_where_it_would_be_the_fourth_in_a_row_without_a_token(state: CoordinatorState) -> None:
    for node in "abcdef":
        link_node(state, node, "m")
    current = only_start(ask(state)[1])
    for _ in range(FAILURES_MAX - 1):
        current = only_start(fail(state, current))
    assert state.handle(seen.NodeDraining(0.0, current.node_id, current.link, 0.0)) == []
    state.handle(seen.FirstPieceDelivered(0.0, current.stream))
    assert only_start(list(state.handle(seen.Tick(0.1)))).request_id == current.request_id


def test_late_words_of_what_was_moved_change_nothing(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    start = begun(state)
    link_node(state, "b", "m")
    second = only_start(list(state.handle(seen.AttemptStalled(1.0, start.stream))))
    for late in (
        seen.LastTokenDelivered(2.0, start.stream),
        seen.AttemptFinished(2.0, start.stream, 5),
        seen.AttemptStalled(2.0, start.stream),
    ):
        assert state.handle(late) == []
    state.handle(seen.NodeReported(2.0, "a", link, a_report("m")))
    assert state.attempts.requests[start.request_id].current is state.attempts.by_stream[second.stream]
