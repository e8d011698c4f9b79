"""More than all nodes can do: who waits, who is told at once, and what second tries may cost."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Fault, Rejection, State
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS, Breaker
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.dispatch import SIBLINGS_MAX
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, WAITING_MAX
from support.states import CHAT, a_report, ask, begun, fail, link_node, only_start

ERROR = FailureDetail(Fault.ENGINE, "out of memory", http_status=500, code="engine_error")


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState()


def starts(effects: object) -> list[do.StartAttempt]:
    assert isinstance(effects, list)
    return [effect for effect in effects if isinstance(effect, do.StartAttempt)]


def no_node(effects: list[do.Effect]) -> do.NoNode:
    [refused] = effects
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.NoNode)
    return refused.why


def fill(state: CoordinatorState, slots: int = 4) -> list[do.StartAttempt]:
    """A node all of whose slots are taken."""
    link_node(state, "a", "m", slots=slots)
    return [begun(state) for _ in range(slots)]


def test_a_request_waits_while_all_are_busy_and_gets_the_first_place_that_comes_free(state: CoordinatorState) -> None:
    running = fill(state)
    request_id, effects = ask(state)
    assert effects == []
    [place] = starts(list(state.handle(seen.AttemptFinished(1.0, running[0].stream, 5))))
    assert place.request_id == request_id


def test_places_go_to_those_that_wait_in_the_order_in_which_they_came(state: CoordinatorState) -> None:
    running = fill(state)
    waiting = [ask(state)[0] for _ in range(3)]
    got = []
    for start in running[:3]:
        [place] = starts(list(state.handle(seen.AttemptFinished(1.0, start.stream, 5))))
        got.append(place.request_id)
    assert got == waiting


def test_whoever_comes_later_waits_behind_those_that_wait(state: CoordinatorState) -> None:
    fill(state)
    first, _ = ask(state)
    link_node(state, "b", "m", slots=1)
    # The new node has taken the one that waited; the next one finds it busy.
    assert first not in state.attempts.waiting
    assert ask(state)[1] == []


def test_a_new_node_takes_over_from_those_that_wait(state: CoordinatorState) -> None:
    fill(state)
    waiting = [ask(state)[0] for _ in range(3)]
    link = link_node(state, "b")
    effects = list(state.handle(seen.NodeReported(1.0, "b", link, a_report("m", slots=8))))
    assert [start.request_id for start in starts(effects)] == waiting


def test_only_so_many_wait_and_the_next_is_told_at_once_when_to_come_back(state: CoordinatorState) -> None:
    fill(state)
    for _ in range(WAITING_MAX):
        assert ask(state)[1] == []
    refused = no_node(ask(state)[1])
    assert refused.counts == (("busy", 1),)
    assert refused.retry_after_seconds >= 1


def test_nobody_waits_who_could_not_be_served_in_time(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    slow = begun(state)
    state.handle(seen.AttemptFinished(60.0, slow.stream, 5))
    begun(state, now=60.0)
    # One place a minute comes free.
    refused = no_node(ask(state, now=60.0)[1])
    assert refused.retry_after_seconds == 50


def test_a_request_that_waited_in_vain_is_told_that_all_are_busy(state: CoordinatorState) -> None:
    fill(state)
    ask(state)
    assert state.handle(seen.Tick(WAIT_SECONDS_MAX - 0.1)) == []
    assert no_node(list(state.handle(seen.Tick(WAIT_SECONDS_MAX)))).counts == (("busy", 1),)
    assert not state.attempts.waiting


def test_an_answer_that_has_begun_never_waits_for_a_slot(state: CoordinatorState) -> None:
    link = link_node(state, "b", "m", slots=1)
    moved = begun(state)
    fill(state)
    assert ask(state)[1] == []
    assert [s.request_id for s in starts(list(state.handle(seen.LinkClosed(1.0, "b", link, "cut"))))] == [
        moved.request_id
    ]


def test_a_request_waits_for_a_node_that_is_about_to_be_back_and_not_for_one_that_has_never_served(
    state: CoordinatorState,
) -> None:
    link = link_node(state, "a", "m")
    state.handle(seen.NodeReported(1.0, "a", link, a_report("m", state=State.STARTING)))
    assert ask(state, now=1.0)[1] == []
    other = link_node(state, "b")
    state.handle(seen.NodeReported(1.0, "b", other, a_report("new", state=State.LOADING)))
    assert no_node(ask(state, "new", now=1.0)[1]).counts == (("loading", 1),)


def test_a_node_that_fails_at_once_draws_next_to_nothing(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m", slots=64)
    asked_bad = 0
    for number in range(100):
        now = number * 0.1
        start = only_start(ask(state, now=now)[1])
        while start.node_id == "a":
            asked_bad += 1
            start = only_start(list(state.handle(seen.AttemptFailed(now, start.stream, ERROR))))
        state.handle(seen.FirstPieceDelivered(now, start.stream))
        state.handle(seen.AttemptFinished(now + 0.05, start.stream, 5))
    assert 1 <= asked_bad <= FAILURES_MAX


def test_a_node_that_was_ejected_is_probed_by_one_request_and_back_with_its_first_token(
    state: CoordinatorState,
) -> None:
    for node in "abc":
        link_node(state, node, "m", slots=64)
    for start in [only_start(ask(state)[1]) for _ in range(3 * FAILURES_MAX)]:
        if start.node_id == "a":
            state.handle(seen.AttemptFailed(0.0, start.stream, ERROR))
        else:
            state.handle(seen.FirstPieceDelivered(0.1, start.stream))
    assert "a" not in {only_start(ask(state, now=1.0)[1]).node_id for _ in range(6)}
    probe = only_start(ask(state, now=OPEN_SECONDS)[1])
    assert probe.node_id == "a"
    assert "a" not in {only_start(ask(state, now=OPEN_SECONDS)[1]).node_id for _ in range(6)}
    state.handle(seen.FirstPieceDelivered(OPEN_SECONDS, probe.stream))
    assert "a" in {only_start(ask(state, now=OPEN_SECONDS)[1]).node_id for _ in range(6)}


def test_where_all_fail_callers_are_told_at_once_until_a_probe_is_due(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m", slots=64)
    attempts = requests = 0
    while True:
        requests += 1
        _, effects = ask(state)
        if not starts(effects):
            break
        while started := starts(effects):
            attempts += 1
            effects = list(state.handle(seen.AttemptFailed(0.0, started[0].stream, ERROR)))
    assert attempts <= 3 * FAILURES_MAX
    refused = no_node(effects)
    assert refused.counts == (("failed_lately", 3),)
    assert refused.retry_after_seconds == OPEN_SECONDS
    assert starts(ask(state, now=OPEN_SECONDS)[1])


def test_retries_after_errors_are_a_fifth_of_all_requests_and_losses_are_not_counted(state: CoordinatorState) -> None:
    for node in "abcdefgh":
        link_node(state, node, "m", slots=1_000)
    running = [only_start(ask(state)[1]) for _ in range(400)]
    retried = 0
    for start in running:
        retried += len(starts(list(state.handle(seen.AttemptFailed(0.0, start.stream, ERROR)))))
    assert retried <= 0.2 * 400 + 3
    state = CoordinatorState()
    for node in "ab":
        link_node(state, node, "m", slots=1_000)
    lost = [start for start in (only_start(ask(state)[1]) for _ in range(100)) if start.node_id == "a"]
    effects = list(state.handle(seen.LinkClosed(0.0, "a", lost[0].link, "cut")))
    assert len(starts(effects)) == len(lost)


def test_one_node_serves_alone_however_often_it_was_lost(state: CoordinatorState) -> None:
    for number in range(20):
        link_node(state, "a", "m", now=float(number))
        start = only_start(ask(state, now=float(number))[1])
        state.handle(seen.FirstPieceDelivered(number + 0.1, start.stream))
        state.handle(seen.LinkClosed(number + 0.2, "a", start.link, "cut"))
        state.handle(seen.CallerLeft(number + 0.3, start.request_id))


def test_answers_to_one_request_all_go_where_the_first_went(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    first = only_start(ask(state)[1])
    for number in range(1, 20):
        own = bytes([number]) * 16
        sibling = seen.RequestArrived(0.0, own, "m", CHAT, True, sibling_of=first.request_id, sibling=number)
        assert len(starts(list(state.handle(sibling)))) == (number < SIBLINGS_MAX)
    # The others wait for as long as it takes, and behind everybody else.
    later, _ = ask(state)
    running = list(state.attempts.by_stream)
    for stream in running[:-1]:
        assert not starts(list(state.handle(seen.AttemptFinished(1.0, stream, 1))))
    [next_one] = starts(list(state.handle(seen.AttemptFinished(1.0, running[-1], 1))))
    assert next_one.request_id == later
    state.handle(seen.Tick(2 * WAIT_SECONDS_MAX))
    assert sum(request.sibling for request in state.attempts.waiting) == 20 - SIBLINGS_MAX


def test_answers_to_a_request_that_waits_itself_wait_with_it(state: CoordinatorState) -> None:
    fill(state)
    first, _ = ask(state)
    sibling = seen.RequestArrived(0.0, b"2" * 16, "m", CHAT, True, sibling_of=first, sibling=1)
    assert not starts(list(state.handle(sibling)))


def test_a_request_that_crashes_two_engines_is_stopped_and_told_so(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    crashed = []
    arrived = seen.RequestArrived(0.0, b"1" * 16, "m", CHAT, True, digest=b"deadly")
    effects = list(state.handle(arrived))
    while started := starts(effects):
        crashed.append(started[0].node_id)
        effects = [*fail(state, started[0], "engine_crashed"), *state.handle(seen.Tick(0.25))]
    assert len(crashed) == len(set(crashed)) == 2
    assert any(isinstance(e, do.RefuseRequest) and isinstance(e.why, do.Poisoned) for e in effects)
    again = seen.RequestArrived(1.0, b"2" * 16, "m", CHAT, True, digest=b"deadly")
    [refused] = state.handle(again)
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.Poisoned)
    assert only_start(ask(state)[1]).node_id not in crashed


def test_an_engine_that_was_killed_or_had_begun_to_answer_blames_nobody(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    for code, spoke in (("engine_lost", False), ("engine_crashed", True)):
        arrived = seen.RequestArrived(0.0, code.encode().ljust(16, b"x"), "m", CHAT, True, digest=b"innocent")
        start = only_start(list(state.handle(arrived)))
        if spoke:
            state.handle(seen.FirstPieceDelivered(0.0, start.stream))
        fail(state, start, code)
        state.handle(seen.CallerLeft(0.0, start.request_id))
    assert not state._dispatch.asking.suspects.nodes(0.0, b"innocent")


def test_of_suspects_one_runs_on_each_node_and_its_token_lets_the_next_run(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m", slots=64)
    state.handle(seen.RequestArrived(0.0, b"1" * 16, "m", CHAT, True, digest=b"one"))
    [first] = state.attempts.by_stream.values()
    beside = [seen.RequestArrived(0.0, bytes([n]) * 16, "m", CHAT, True, digest=bytes([n])) for n in range(2, 11)]
    for event in beside:
        state.handle(event)
    on_first = [a.stream for a in state.attempts.by_stream.values() if a.node_id == first.node_id]
    for stream in on_first:
        failure = FailureDetail(Fault.ENGINE, "it crashed", code="engine_crashed")
        state.handle(seen.AttemptFailed(0.1, stream, failure))
    assert len(state.attempts.waiting) == len(on_first), "who else was reading there is not told yet"
    state.handle(seen.Tick(0.15))
    suspects = [a for a in state.attempts.by_stream.values() if a.number == 2]
    assert len({suspect.node_id for suspect in suspects} - {first.node_id}) == len(suspects) == 2
    left = len(on_first) - 2
    assert len(state.attempts.waiting) == left > 0
    assert len(starts(list(state.handle(seen.FirstPieceDelivered(0.2, suspects[0].stream))))) == 1


def crashes(state: CoordinatorState, stream: int) -> None:
    """The engine crashed, and this attempt had no token."""
    failure = FailureDetail(Fault.ENGINE, "it crashed", code="engine_crashed")
    state.handle(seen.AttemptFailed(0.1, stream, failure))


def test_what_waits_while_it_is_convicted_is_asked_of_nobody_any_more(state: CoordinatorState) -> None:
    for node in "abc":
        link_node(state, node, "m")
    for number in (1, 2):
        state.handle(seen.RequestArrived(0.0, bytes([number]) * 16, "m", CHAT, True, digest=b"deadly"))
    streams = list(state.attempts.by_stream)
    crashes(state, streams[0])
    assert len(state.attempts.waiting) == 1
    crashes(state, streams[1])
    [refused] = state.handle(seen.Tick(0.25))
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.Poisoned)


def test_a_suspect_does_not_run_beside_another_that_was_sent_before(state: CoordinatorState) -> None:
    for node in "ab":
        link_node(state, node, "m", slots=64)
    for number in range(4):
        digest = b"deadly" if number < 2 else bytes([number])
        state.handle(seen.RequestArrived(0.0, bytes([number]) * 16, "m", CHAT, True, digest=digest))
    [first, second, third, _] = state.attempts.by_stream.values()
    assert first.node_id == third.node_id != second.node_id
    crashes(state, first.stream)
    crashes(state, third.stream)
    # The other node still reads what may be deadly: whoever was read beside it here is tried there after that.
    assert not starts(list(state.handle(seen.Tick(0.25))))
    assert starts(list(state.handle(seen.FirstPieceDelivered(0.3, second.stream))))


def test_a_place_at_a_node_that_is_busy_or_has_lost_its_engine_goes_to_nobody(state: CoordinatorState) -> None:
    link_node(state, "a", "m", slots=1)
    start = only_start(ask(state)[1])
    ask(state)
    gone = FailureDetail(Fault.ENGINE, "it is gone", code="engine_lost")
    assert not starts(list(state.handle(seen.AttemptFailed(0.1, start.stream, gone))))
    [again] = starts(list(state.handle(seen.Tick(0.25))))
    assert not starts(list(state.handle(seen.AttemptRejected(0.3, again.stream, Rejection.BUSY))))


def test_what_goes_on_where_many_failed_neither_is_the_probe_nor_ends_it() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(0.0)
    assert not breaker.began(1.0)
    assert breaker.began(31.0)
    assert not breaker.began(32.0)
    assert not breaker.allows(33.0)


def test_only_busy_nodes_count_for_how_long_one_would_wait(state: CoordinatorState) -> None:
    running = fill(state)
    link_node(state, "out", "m", slots=40)
    state.roster.nodes["out"].offers["m"].standing.breaker.opened = 1
    state.roster.nodes["out"].offers["m"].standing.breaker.open_until = 1_000.0
    state.handle(seen.AttemptFinished(300.0, running[0].stream, 5))
    only_start(ask(state, now=300.0)[1])
    assert no_node(ask(state, now=301.0)[1]).retry_after_seconds >= 1
    assert len(state.attempts.waiting) == 0
