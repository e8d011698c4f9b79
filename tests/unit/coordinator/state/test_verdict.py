"""What the coordinator thinks of a node: one state, why, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shrk_contract.terms import Device, EngineReport, Report, State, Status, Terms
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS, Breaker
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.verdict import (
    DEMAND_SECONDS_MAX,
    HEARD_SECONDS_MAX,
    BreakerState,
    Check,
    CheckName,
    Verdict,
    breaker_state,
    eligible,
    judge,
    state_of,
)
from support.states import a_report, ask, link_node, new_link


def judged(state: CoordinatorState, now: float = 0.0, node: str = "a") -> Verdict:
    return judge(state.roster, state.roster.nodes[node], now)


def check_of(verdict: Verdict, name: CheckName) -> Check:
    [check] = [check for check in verdict.checks if check.name is name]
    return check


def reporting(report: Report, now: float = 0.0) -> CoordinatorState:
    """A coordinator with one node `a` that says this."""
    state, link = CoordinatorState(), new_link()
    state.handle(seen.NodeHello(now, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(now, "a", link, report))
    return state


def test_a_node_that_serves_passes_every_check_but_that_nobody_asked_for_its_model_yet() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    verdict = judged(state)
    assert (verdict.state, verdict.reason, verdict.next_action) == (State.ONLINE, "", "")
    assert [check.name for check in verdict.checks] == list(CheckName)
    assert [check.name for check in verdict.checks if not check.passed] == [CheckName.DEMAND]
    assert check_of(verdict, CheckName.DEMAND).reason == "nobody has asked for 'm' since the coordinator started"


def test_a_model_that_is_served_has_answered_its_canary_and_that_is_told() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    link_node(state, "b", "m", "other")
    told = [check_of(judged(state, node=node), CheckName.MODELS).reason for node in ("a", "b")]
    assert told == [
        "it serves 'm' (it answered its canary)",
        "it serves 'm', 'other' (each answered its canary)",
    ]


def test_demand_is_told_with_when_somebody_last_asked() -> None:
    state = CoordinatorState()
    link_node(state, "a", "other", "m")
    ask(state, "other", now=9.0)
    ask(state, now=10.0)
    asked = check_of(judged(state, 22.0), CheckName.DEMAND)
    assert (asked.passed, asked.reason) == (True, "somebody asked for 'm' 12 s ago")
    assert not check_of(judged(state, 11.0 + DEMAND_SECONDS_MAX), CheckName.DEMAND).passed


def test_a_lost_node_is_offline_with_why_and_nothing_more_is_claimed() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m")
    state.handle(seen.LinkClosed(5.0, "a", link, "the node closed it"))
    verdict = judged(state, 100.0)
    assert (verdict.state, verdict.since) == (State.OFFLINE, 5.0)
    assert verdict.reason == "its link was lost: the node closed it"
    assert "Start the agent" in verdict.next_action
    assert [check.name for check in verdict.checks] == [CheckName.CONNECTED]
    assert "dial again" in judged(state, 6.0).next_action


def test_a_node_that_works_and_says_nothing_is_unreachable_since_it_was_last_heard() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", now=1.0)
    state.roster.nodes["a"].quiet = True
    verdict = judged(state, 6.0)
    assert (verdict.state, verdict.since) == (State.UNREACHABLE, 1.0)
    assert "works for somebody" in verdict.reason
    assert check_of(verdict, CheckName.HEARD).word is Reason.UNWELL


def test_an_idle_node_that_missed_two_reports_is_told_while_it_still_counts_as_online() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    assert check_of(judged(state, HEARD_SECONDS_MAX), CheckName.HEARD).passed
    verdict = judged(state, HEARD_SECONDS_MAX + 1)
    assert (verdict.state, verdict.reason) == (State.ONLINE, "nothing was heard from it for 11 s")


def test_a_node_that_has_just_connected_is_starting() -> None:
    state = CoordinatorState()
    state.handle(seen.NodeHello(3.0, "a", new_link(), 1, owner="o"))
    verdict = judged(state, 3.0)
    assert (verdict.state, verdict.since) == (State.STARTING, 3.0)
    assert "first report" in verdict.reason


def test_a_node_that_stops_is_draining() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m")
    state.handle(seen.NodeDraining(7.0, "a", link, 30.0))
    verdict = judged(state, 8.0)
    assert (verdict.state, verdict.since) == (State.DRAINING, 7.0)
    assert check_of(verdict, CheckName.TAKES_WORK).word is Reason.DRAINING


@pytest.mark.parametrize("state", [State.OFF_SCHEDULE, State.PAUSED, State.COOLING])
def test_what_a_node_says_of_itself_goes_before_our_words(state: State) -> None:
    own = Status(state, reason="because", next_action="do this")
    verdict = judged(reporting(replace(a_report("m", state=state), status=own)))
    assert (verdict.state, verdict.reason, verdict.next_action) == (state, "because", "do this")


def test_a_node_outside_its_hours_is_told_with_them() -> None:
    report = replace(a_report("m", state=State.OFF_SCHEDULE), terms=Terms(schedule="22:00-08:00"))
    verdict = judged(reporting(report))
    assert verdict.reason == "it is outside its hours (22:00-08:00)"
    assert check_of(verdict, CheckName.HOURS).word is State.OFF_SCHEDULE


@pytest.mark.parametrize(("celsius", "passed"), [(67.9, True), (68.0, False)])
def test_a_device_within_two_degrees_of_what_is_allowed_is_hot(celsius: float, passed: bool) -> None:
    devices = (Device("1", temperature_celsius=celsius), Device("2"))
    report = replace(a_report("m"), devices=devices, terms=Terms(temperature_celsius_max=70.0))
    check = check_of(judged(reporting(report)), CheckName.TEMPERATURE)
    assert (check.passed, check.reason) == (passed, "the hottest device is at 68 °C, 70 °C are allowed")


def test_what_a_cool_device_serves_is_asked_for_while_another_is_hot() -> None:
    cooling = EngineReport("e", "big", Status(State.COOLING, "GPU 1: 69 °C of 70 °C"))
    devices = (Device("0", temperature_celsius=40.0), Device("1", temperature_celsius=69.0), Device("2"))
    report = a_report("m")
    report = replace(
        report, engines=(*report.engines, cooling), devices=devices, terms=Terms(temperature_celsius_max=70.0)
    )
    state = reporting(report)
    verdict = judged(state)
    assert state.roster.nodes["a"].margin == 30.0
    assert (verdict.state, verdict.reason) == (State.ONLINE, "")
    heat = check_of(verdict, CheckName.TEMPERATURE).reason
    assert (
        heat == "the hottest device is at 69 °C, 70 °C are allowed, and what runs on it waits; the coolest is at 40 °C"
    )
    assert check_of(verdict, CheckName.MODELS).reason == (
        "it serves 'm' (it answered its canary); 'big' is cooling: GPU 1: 69 °C of 70 °C"
    )


def test_what_heat_drains_is_not_said_to_be_a_matter_of_hours() -> None:
    report = replace(a_report("m", state=State.COOLING), terms=Terms(closes_in_seconds=0.0))
    assert check_of(judged(reporting(report)), CheckName.HOURS).passed


def test_a_model_that_loads_is_told_with_how_far_it_is() -> None:
    loading = EngineReport("e", "m", Status(State.LOADING), progress=0.4)
    verdict = judged(reporting(replace(a_report("m", state=State.LOADING), engines=(loading,))))
    assert (verdict.state, verdict.reason) == (State.LOADING, "'m' is loading (40%)")
    assert check_of(verdict, CheckName.MODELS).word is State.LOADING


def test_one_model_of_two_that_cannot_be_served_is_told_beside_online() -> None:
    broken = EngineReport("e", "big", Status(State.INCOMPATIBLE, "too big", "buy memory"))
    report = a_report("m")
    verdict = judged(reporting(replace(report, engines=(*report.engines, broken))))
    assert (verdict.state, verdict.reason) == (State.ONLINE, "'big' is incompatible: too big")
    assert verdict.next_action == "buy memory"


def test_a_model_that_is_not_wanted_there_is_nothing_wrong_with_a_node_that_serves_another() -> None:
    put_away = [
        EngineReport(state, state, Status(state, "not wanted here")) for state in (State.PAUSED, State.DRAINING)
    ]
    report = a_report("m")
    verdict = judged(reporting(replace(report, engines=(*report.engines, *put_away))))
    assert (verdict.state, verdict.reason, verdict.next_action) == (State.ONLINE, "", "")
    assert check_of(verdict, CheckName.MODELS).passed


def test_failures_silence_and_heat_are_told_before_a_model_that_is_not_served() -> None:
    broken = EngineReport("e", "big", Status(State.INCOMPATIBLE, "too big", "buy memory"))
    report = a_report("m", "n")
    hot = (Device("0", temperature_celsius=69.0),)
    state = reporting(
        replace(
            report,
            engines=(*report.engines, broken),
            devices=hot,
            terms=Terms(temperature_celsius_max=70.0),
        )
    )
    assert "69 °C" in judged(state).reason
    state.roster.nodes["a"].standing("n").breaker.stall(0.0)
    assert judged(state).reason.startswith("'n': an answer stalled")
    assert judged(state, HEARD_SECONDS_MAX + 1).reason.startswith("nothing was heard")


def test_a_node_without_a_model_is_paused_with_what_to_do() -> None:
    verdict = judged(reporting(a_report()))
    assert (verdict.state, verdict.reason) == (State.PAUSED, "it has no model to serve")
    assert "name models" in verdict.next_action


def test_a_node_where_requests_fail_is_quarantined_until_a_token_comes() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    standing = state.roster.nodes["a"].standing("m")
    for now in range(FAILURES_MAX):
        standing.failed(float(now))
    verdict = judged(state, 10.0)
    assert (verdict.state, verdict.since) == (State.QUARANTINED, FAILURES_MAX - 1.0)
    assert verdict.reason == "'m': requests have failed for 8 s (3 in a row); it is tried again in 22 s"
    assert check_of(verdict, CheckName.TRUSTED).word is Reason.EJECTED
    assert judged(state, 60.0).reason.endswith("it waits for a request to show that it is well")
    standing.spoke()
    assert judged(state, 60.0).state is State.ONLINE


def test_a_node_where_an_answer_stalled_is_told_so() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m")
    state.roster.nodes["a"].standing("m").breaker.stall(1.0)
    check = check_of(judged(state, 1.0), CheckName.TRUSTED)
    assert (check.word, check.reason) == (Reason.UNWELL, "'m': an answer stalled 0 s ago; it is tried again in 30 s")


def test_one_model_of_two_that_is_left_alone_does_not_make_its_node_quarantined() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", "n")
    state.roster.nodes["a"].standing("n").breaker.stall(1.0)
    assert judged(state, 1.0).state is State.ONLINE


def test_a_node_without_a_free_place_is_busy() -> None:
    state = CoordinatorState()
    link_node(state, "a", "m", slots=2)
    for _ in range(2):
        ask(state)
    verdict = judged(state)
    assert (verdict.state, verdict.reason) == (State.BUSY, "it works on 2 at once, of 2")
    assert check_of(verdict, CheckName.ROOM).word is Reason.FULL


def test_since_when_a_node_serves_does_not_begin_anew_with_each_busy_moment() -> None:
    state = CoordinatorState()
    link = link_node(state, "a", "m", now=1.0)
    for now, reported in ((5.0, State.BUSY), (10.0, State.ONLINE)):
        state.handle(seen.NodeReported(now, "a", link, a_report("m", state=reported)))
    assert judged(state, 10.0).since == 1.0
    state.handle(seen.NodeReported(15.0, "a", link, a_report("m", state=State.LOADING)))
    assert judged(state, 15.0).since == 15.0


def test_a_nodes_own_words_are_cut_to_a_line_and_its_models_counted() -> None:
    engines = tuple(EngineReport(str(i), f"m{i}", Status(State.LOADING, "x" * 2_000)) for i in range(64))
    reason = judged(reporting(replace(a_report(state=State.LOADING), engines=engines))).reason
    assert len(reason) < 1_100
    assert reason.endswith(" and 61 more")


def test_a_breaker_is_closed_open_and_then_half_open() -> None:
    breaker = Breaker()
    assert breaker_state(breaker, 0.0) is BreakerState.CLOSED
    breaker.stall(1.0)
    assert breaker_state(breaker, OPEN_SECONDS) is BreakerState.OPEN
    assert breaker_state(breaker, OPEN_SECONDS + 1) is BreakerState.HALF_OPEN


@pytest.mark.parametrize("reported", list(State))
def test_whatever_a_node_reports_has_a_state_and_where_it_does_not_serve_a_reason(reported: State) -> None:
    state = reporting(a_report("m", state=reported))
    verdict = judged(state)
    assert verdict.state is state_of(state.roster.nodes["a"])
    serves = reported in (State.ONLINE, State.BUSY)
    assert (verdict.reason == "") is serves
    assert (verdict.next_action == "") is serves


def test_a_node_about_to_close_is_told_so_and_is_not_asked_though_it_still_serves() -> None:
    state = reporting(replace(a_report("m"), terms=Terms(closes_in_seconds=20.0)))
    verdict, node = judged(state), state.roster.nodes["a"]
    hours = check_of(verdict, CheckName.HOURS)
    assert (verdict.state, hours.passed, hours.word) == (State.ONLINE, False, Reason.CLOSING)
    assert hours.reason == "its hours end in 20 s: it takes nothing new"
    assert not eligible(node, 0.0)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (a_report("m"), True),
        (a_report("m", state=State.LOADING), False),
        (replace(a_report("m"), terms=Terms(closes_in_seconds=3600.0)), True),
        (a_report(), False),
    ],
)
def test_a_node_is_eligible_while_it_would_be_asked(report: Report, expected: bool) -> None:
    state = reporting(report)
    assert eligible(state.roster.nodes["a"], 0.0) is expected
