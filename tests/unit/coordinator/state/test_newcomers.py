"""Whoever comes while others wait: places go to those that may have them, in the order in which they came."""

from __future__ import annotations

import pytest

from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.asking import HEADS
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from support.states import ask, begun, fail, link_node, only_start


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def starts(effects: list[do.Effect]) -> list[do.StartAttempt]:
    return [effect for effect in effects if isinstance(effect, do.StartAttempt)]


def failed_there(state: CoordinatorState, slots: int, count: int) -> list[do.StartAttempt]:
    """A node at which so many requests have failed, which wait for another; one answer more runs there."""
    link_node(state, "a", "m", slots=slots)
    asked = [only_start(ask(state)[1]) for _ in range(count + 1)]
    for start in asked[:-1]:
        fail(state, start, "engine_lost")
    return asked


def test_those_that_failed_at_a_node_do_not_keep_its_places_from_whoever_comes_next(state: CoordinatorState) -> None:
    failed_there(state, 2 * HEADS, HEADS + 1)
    assert len(state.attempts.waiting) == HEADS + 1
    newcomer, effects = ask(state)
    assert [start.request_id for start in starts(effects)] == [newcomer]


def test_those_that_failed_at_a_node_do_not_keep_its_places_from_those_behind_them(state: CoordinatorState) -> None:
    asked = failed_there(state, HEADS + 2, HEADS + 1)
    behind, effects = ask(state, now=1.0)
    while starts(effects):
        behind, effects = ask(state, now=1.0)
    finished = list(state.handle(seen.AttemptFinished(1.1, asked[-1].stream)))
    assert [start.request_id for start in starts(finished)] == [behind]


def test_time_alone_lets_those_behind_have_what_those_that_failed_there_may_not(state: CoordinatorState) -> None:
    failed_there(state, HEADS + 2, HEADS + 1)
    standing = state.roster.nodes["a"].offers["m"].standing
    standing.busy_until = 5.0
    behind, effects = ask(state, now=1.0)
    assert not starts(effects), "the node has said that it is busy"
    state.handle(seen.NodeHeard(5.0, "a", state.roster.nodes["a"].link or 0))
    assert [start.request_id for start in starts(list(state.handle(seen.Tick(5.1))))] == [behind]


def test_whoever_comes_while_others_wait_for_another_node_hears_at_once_when_this_one_is_tried_again(
    state: CoordinatorState,
) -> None:
    failed_there(state, HEADS, FAILURES_MAX)
    breaker = state.roster.nodes["a"].offers["m"].standing.breaker
    for _ in range(FAILURES_MAX):
        breaker.failed(1.0)
    [refused] = ask(state, now=1.0)[1]
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.NoNode)
    assert refused.why.retry_after_seconds == OPEN_SECONDS


def test_a_place_that_a_newcomer_would_get_goes_to_whoever_waited_for_it(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=4)
    running = [begun(state) for _ in range(4)]
    first, _ = ask(state, now=1.0)
    second, _ = ask(state, now=1.0)
    # Nothing was heard of it: as where time has passed, and no tick yet.
    state.roster.nodes["a"].offers["m"].in_flight -= 1
    newcomer, effects = ask(state, now=2.0)
    assert [start.request_id for start in starts(effects)] == [first]
    assert {second, newcomer} == {request.request_id for request in state.attempts.waiting}
    assert len(running) == 4


def test_those_that_come_in_a_moment_hear_what_the_first_of_them_heard(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    for node in ("b", "c"):
        link_node(state, node, "m", slots=1)
        for _ in range(FAILURES_MAX):
            state.roster.nodes[node].offers["m"].standing.failed(0.0)
    first = begun(state)
    state.handle(seen.AttemptFinished(5.0, first.stream, 5))
    only_start(ask(state, now=5.0)[1])
    answers = [ask(state, now=5.0 + number / 1_000)[1] for number in range(8)]
    refused = [effect.why for [effect] in filter(None, answers) if isinstance(effect, do.RefuseRequest)]
    assert [answers[0], answers[1]] == [[], []], "two have their turn within ten seconds"
    assert len(refused) == 6
    assert {dict(why.counts)["busy"] for why in refused if isinstance(why, do.NoNode)} == {1}


def test_what_failed_somewhere_waits_for_a_node_that_is_merely_busy(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    link_node(state, "b", "m", slots=1)
    first, second = only_start(ask(state)[1]), only_start(ask(state)[1])
    assert fail(state, first, "engine_error") != []
    assert first.request_id in state.attempts.waiting
    [place] = starts(list(state.handle(seen.AttemptFinished(1.0, second.stream, 5))))
    assert (place.request_id, place.node_id) == (first.request_id, second.node_id)
