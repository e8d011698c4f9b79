"""Probes: one token asked of one node and of no other, at nobody's cost, and why where it is not asked."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from shrk_contract.terms import Device, Endpoint, Fault, Rejection, State, Status, Terms
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.journal import Outcome
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.probing import ASKED_BY, NotAsked, Target, explained, target
from support.states import CHAT, a_failure, a_report, ask, fail, link_node, lose, new_link, only_start

_numbers = itertools.count(1)


def probe(state: CoordinatorState, node: str = "a", model: str = "m", now: float = 0.0) -> list[do.Effect]:
    request_id = next(_numbers).to_bytes(16, "little")
    return list(state.handle(seen.ProbeArrived(now, request_id, node, model, CHAT)))


def a_state(*nodes: str, slots: int = 4) -> CoordinatorState:
    state = CoordinatorState()
    for node in nodes:
        link_node(state, node, "m", slots=slots)
    return state


def refused_for(effects: list[do.Effect]) -> tuple[tuple[str, int], ...]:
    [refused] = effects
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.NoNode)
    return refused.why.counts


def open_breaker(state: CoordinatorState, node: str = "a") -> None:
    """Requests fail there until it is left alone."""
    for _ in range(FAILURES_MAX):
        start = only_start(probe(state, node))
        fail(state, start, "engine_nonsense")
    assert not state.roster.nodes[node].offers["m"].standing.breaker.closed


def test_it_is_asked_of_its_own_node_however_many_others_are_better_and_is_never_hedged() -> None:
    state = a_state("a", *(f"other-{number}" for number in range(40)))
    start = only_start(probe(state))
    assert (start.node_id, start.rival, start.hedge_after) == ("a", False, None)


def test_a_node_that_is_gone_or_serves_something_else_is_not_asked_and_nobody_else_is() -> None:
    state = a_state("a", "b")
    assert refused_for(probe(state, "nobody")) == ()
    assert refused_for(probe(state, "a", "else")) == ()
    assert state.attempts.requests == {}


@pytest.mark.parametrize("end", ["failure", "loss", "rejection"])
def test_it_is_asked_once_and_no_other_node_takes_its_place(end: str) -> None:
    state = a_state("a", "b")
    start = only_start(probe(state))
    match end:
        case "failure":
            effects = fail(state, start)
        case "loss":
            effects = lose(state, start)
        case _:
            effects = list(state.handle(seen.AttemptRejected(0.0, start.stream, Rejection.TERMS)))
    assert not [effect for effect in effects if isinstance(effect, do.StartAttempt)]
    assert isinstance(effects[-1], do.RefuseRequest if end == "rejection" else do.FailRequest)
    assert state.attempts.requests == {}


def test_a_rejected_one_says_that_the_node_itself_did_not_take_it() -> None:
    state = a_state("a", "b")
    start = only_start(probe(state))
    effects = list(state.handle(seen.AttemptRejected(0.0, start.stream, Rejection.TERMS)))
    assert refused_for(effects[1:]) == ((Reason.REJECTED, 1),)


def test_one_that_runs_while_its_node_drains_is_not_moved() -> None:
    state = a_state("a", "b")
    start = only_start(probe(state))
    state.handle(seen.AttemptAccepted(0.0, start.stream))
    node = state.roster.nodes["a"]
    assert node.link is not None
    effects = state.handle(seen.NodeDraining(1.0, "a", node.link, 0.0))
    assert not [effect for effect in effects if isinstance(effect, do.StartAttempt)]
    assert start.stream in state.attempts.by_stream


def test_a_node_whose_slots_are_taken_is_asked_all_the_same_for_its_engine_has_a_queue() -> None:
    state = a_state("a", slots=1)
    ask(state)
    assert only_start(probe(state)).node_id == "a"


def test_its_token_closes_a_breaker_and_its_failures_count_as_any_do() -> None:
    state = a_state("a")
    open_breaker(state)
    assert refused_for(probe(state, now=1.0)) == ((Reason.EJECTED, 1),)
    later = OPEN_SECONDS + 1.0
    start = only_start(probe(state, now=later))
    state.handle(seen.AttemptFinished(later + 1, start.stream, 1))
    assert state.roster.nodes["a"].offers["m"].standing.breaker.closed


def test_one_that_is_given_up_says_nothing_against_its_engine() -> None:
    state = a_state("a")
    start = only_start(probe(state))
    state.handle(seen.CallerLeft(60.0, start.request_id))
    standing = state.roster.nodes["a"].offers["m"].standing
    assert (standing.breaker.closed, standing.breaker.failures) == (True, 0)
    assert state.attempts.by_stream == {}


def test_a_fault_of_the_probe_itself_counts_against_nobody() -> None:
    state = a_state("a")
    start = only_start(probe(state))
    ours = replace(a_failure("bad"), fault=Fault.CALLER)
    state.handle(seen.AttemptFailed(0.0, start.stream, ours))
    assert state.roster.nodes["a"].offers["m"].standing.breaker.failures == 0


def test_it_is_no_demand_and_teaches_nothing_about_how_long_answers_take() -> None:
    state = a_state("a")
    start = only_start(probe(state))
    state.handle(seen.AttemptFinished(9.0, start.stream, 1))
    served = state.roster.served("m")
    assert served is not None
    assert (served.asked_at, served.freed_per_second) == (None, 0.0)


def retries_allowed(state: CoordinatorState) -> int:
    """How many of some requests that fail are asked of another node."""
    starts = [only_start(ask(state)[1]) for _ in range(12)]
    return sum(isinstance(e, do.StartAttempt) for start in starts for e in fail(state, start, "engine_nonsense"))


def test_it_neither_takes_from_the_retries_of_callers_nor_earns_them_any() -> None:
    fresh, probed = a_state("a", "b", slots=64), a_state("a", "b", slots=64)
    for _ in range(200):
        start = only_start(probe(probed))
        probed.handle(seen.AttemptFinished(0.0, start.stream, 1))
    allowed = retries_allowed(fresh)
    assert 0 < allowed < 12
    assert retries_allowed(probed) == allowed


def test_what_became_of_it_is_written_down() -> None:
    state = a_state("a")
    start = only_start(probe(state))
    state.handle(seen.AttemptFinished(1.0, start.stream, 1))
    entry = state.journal.find(start.request_id)
    assert entry is not None
    assert (entry.outcome, entry.key_id) == (Outcome.FINISHED, "")


# --- what is asked ------------------------------------------------------------------------------------------


def test_without_a_name_the_first_model_that_can_be_asked_now_is_asked() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", "z")
    assert target(state.roster, "a", "", 0.0) == Target("m", CHAT)
    open_breaker(state)
    assert target(state.roster, "a", "", 0.0) == Target("z", CHAT)
    assert target(state.roster, "a", "m", 0.0) == Target("m", CHAT), "the one that is named is asked, whatever it says"


@pytest.mark.parametrize("endpoint", ASKED_BY)
def test_a_model_is_asked_in_a_way_that_it_answers(endpoint: Endpoint) -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", endpoints=(endpoint,))
    assert target(state.roster, "a", "", 0.0) == Target("m", endpoint)


def test_a_model_that_answers_nothing_a_probe_can_ask_is_said_to() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", endpoints=(Endpoint.RERANK,))
    why = target(state.roster, "a", "", 0.0)
    assert isinstance(why, NotAsked)
    assert "nothing that a probe can ask" in why.reason


def test_a_name_that_the_node_does_not_have_is_answered_with_those_it_has() -> None:
    why = target(a_state("a").roster, "a", "mm", 0.0)
    assert isinstance(why, NotAsked)
    assert why.reason == "it does not have 'mm' among its models; it serves 'm'"


def test_a_model_that_is_not_loaded_is_told_as_the_checklist_tells_it() -> None:
    state, link = CoordinatorState(), new_link()
    state.handle(seen.NodeHello(0.0, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(0.0, "a", link, a_report("m", state=State.LOADING)))
    for model in ("", "m"):
        why = target(state.roster, "a", model, 0.0)
        assert isinstance(why, NotAsked)
        assert why.reason == "'m' is loading"


def test_a_node_without_a_link_has_nothing_to_ask() -> None:
    state = a_state("a")
    link = state.roster.nodes["a"].link
    assert link is not None
    state.handle(seen.LinkClosed(1.0, "a", link, "cut"))
    for node in ("a", "nobody"):
        why = target(state.roster, node, "", 1.0)
        assert isinstance(why, NotAsked)
        assert "no link" in why.reason


# --- reasons in words ---------------------------------------------------------------------------------------


def test_an_open_breaker_is_told_with_what_failed_and_when_it_is_tried_again() -> None:
    state = a_state("a")
    open_breaker(state)
    why = explained(state.roster, "a", Reason.EJECTED, 1.0)
    assert "requests have failed" in why.reason
    assert "is tried again in" in why.reason
    assert why.next_action


def test_heat_is_told_with_its_degrees() -> None:
    state, link = CoordinatorState(), new_link()
    hot = replace(
        a_report("m"), devices=(Device("GPU", temperature_celsius=69.0),), terms=Terms(temperature_celsius_max=70.0)
    )
    state.handle(seen.NodeHello(0.0, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(0.0, "a", link, hot))
    assert refused_for(probe(state)) == ((Reason.HOT, 1),)
    assert "69 °C, 70 °C are allowed" in explained(state.roster, "a", Reason.HOT, 0.0).reason


def test_a_window_that_is_about_to_close_is_told_with_how_soon() -> None:
    state, link = CoordinatorState(), new_link()
    closing = replace(a_report("m"), terms=Terms(closes_in_seconds=10.0))
    state.handle(seen.NodeHello(0.0, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(0.0, "a", link, closing))
    assert refused_for(probe(state)) == ((Reason.CLOSING, 1),)
    assert explained(state.roster, "a", Reason.CLOSING, 0.0).reason.startswith("its hours end in 10 s")


@pytest.mark.parametrize("reason", [*Reason])
def test_every_reason_has_words_and_none_is_without_what_to_do(reason: Reason) -> None:
    why = explained(a_state("a").roster, "a", reason, 0.0)
    assert why.reason
    assert why.next_action


def test_a_node_that_paused_meanwhile_explains_itself() -> None:
    state, link = CoordinatorState(), new_link()
    status = Status(State.PAUSED, "its owner plays a game", "shrk resume")
    paused = replace(a_report("m", state=State.PAUSED), status=status)
    state.handle(seen.NodeHello(0.0, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(0.0, "a", link, paused))
    assert target(state.roster, "a", "", 0.0) == NotAsked("its owner plays a game", "shrk resume")


def test_a_node_that_stops_is_told_as_that_and_not_as_what_became_of_its_models() -> None:
    state = a_state("a")
    link = state.roster.nodes["a"].link
    assert link is not None
    state.handle(seen.NodeDraining(0.0, "a", link, 60.0))
    state.handle(seen.NodeReported(0.0, "a", link, a_report("m", state=State.DRAINING)))
    why = target(state.roster, "a", "m", 0.0)
    assert isinstance(why, NotAsked)
    assert why.reason.startswith("its agent is stopping")
