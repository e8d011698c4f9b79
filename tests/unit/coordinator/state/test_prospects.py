"""What a request that finds no node may hope for."""

from __future__ import annotations

from shrk_contract.terms import State
from shrk_coordinator.data_plane.errors import from_refusal
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.nowhere import Nowhere
from shrk_coordinator.state.placement import Reason
from shrk_coordinator.state.prospects import RETRY_AFTER_SECONDS, retry_after, seconds_until_turn
from shrk_coordinator.state.replicas.facts import LOAD_SECONDS
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.waiting import WAIT_SECONDS_MAX, Waiting
from support.states import a_report, ask, link_node, new_link

FULL = Nowhere(((Reason.FULL, 2),))


def a_roster(answer_seconds: float | None = None) -> Roster:
    """Two nodes of four slots each, whose answers take so long."""
    roster = Roster()
    for link, node in enumerate("ab"):
        roster.report(0.0, roster.link(0.0, node, link, 1, "owner"), a_report("m", slots=4))
    if answer_seconds is not None and (served := roster.served("m")) is not None:
        served.answered(answer_seconds)
    return roster


def test_a_place_comes_free_as_often_as_answers_end() -> None:
    assert seconds_until_turn(a_roster(16.0), Waiting(), "m", FULL) == 2.0
    assert seconds_until_turn(a_roster(), Waiting(), "m", FULL) == 0.0, "nothing is known yet"


def test_of_nodes_that_fail_no_place_is_expected() -> None:
    half = Nowhere(((Reason.FULL, 1), (Reason.EJECTED, 1), ("loading", 5)), busy_share=0.5)
    assert seconds_until_turn(a_roster(16.0), Waiting(), "m", half) == 4.0


def test_whoever_would_wait_too_long_is_told_how_much_too_long() -> None:
    roster = a_roster(8 * (WAIT_SECONDS_MAX + 7.0))
    assert retry_after(0.0, roster, Waiting(), "m", FULL) == 7
    assert retry_after(0.0, a_roster(1.0), Waiting(), "m", FULL) == RETRY_AFTER_SECONDS


def test_where_all_fail_the_next_probe_is_the_time_and_never_at_once() -> None:
    roster = a_roster()
    for node in roster.nodes.values():
        node.offers["m"].standing.breaker.stall(0.0)
    failing = Nowhere(((Reason.EJECTED, 2),))
    assert retry_after(17.5, roster, Waiting(), "m", failing) == 13
    assert retry_after(30.0, roster, Waiting(), "m", failing) == 1


def test_of_anything_else_nobody_knows_how_long_it_takes() -> None:
    assert retry_after(0.0, a_roster(), Waiting(), "m", Nowhere((("loading", 2),))) == RETRY_AFTER_SECONDS


def unloaded(now: float = 0.0) -> tuple[CoordinatorState, int]:
    """A node has `m` and has not loaded it."""
    state, link = CoordinatorState(), new_link()
    state.handle(seen.NodeHello(now, "a", link, 1, owner="o"))
    state.handle(seen.NodeReported(now, "a", link, a_report("m", state=State.PAUSED)))
    return state, link


def refused(state: CoordinatorState, now: float) -> do.NoNode:
    _, [refusal] = ask(state, now=now)
    assert isinstance(refusal, do.RefuseRequest)
    assert isinstance(refusal.why, do.NoNode)
    return refusal.why


def words(why: do.NoNode) -> str:
    return from_refusal(do.RefuseRequest(b"", why)).message


def test_the_first_caller_of_an_idle_model_is_told_to_come_back_when_it_is_loaded() -> None:
    state, _ = unloaded()
    why = refused(state, 1.0)
    assert (why.retry_after_seconds, why.loads_in_seconds, why.loading) == (LOAD_SECONDS, LOAD_SECONDS, False)
    assert "It is loaded now that somebody asks" in words(why)
    assert f"about {LOAD_SECONDS:.0f} s" in words(why)


def test_while_it_is_being_loaded_the_time_that_is_left_is_told() -> None:
    state, link = unloaded()
    state.handle(seen.NodeReported(10.0, "a", link, a_report("m", state=State.LOADING)))
    why = refused(state, 30.0)
    assert (why.loads_in_seconds, why.loading) == (LOAD_SECONDS - 20.0, True)
    assert "It is being loaded, which should take about 100 s more." in words(why)
    late = refused(state, 10.0 + LOAD_SECONDS)
    assert (late.retry_after_seconds, late.loads_in_seconds) == (2.0, 0.0)
    assert "no more than a moment" in words(late)
    later = refused(state, 70.0 + LOAD_SECONDS)
    assert (later.retry_after_seconds, later.loads_in_seconds, later.loading) == (60.0, None, True)
    assert "takes longer than it usually does" in words(later)


def test_how_long_loading_took_is_learnt() -> None:
    state, link = unloaded()
    for now, reported in ((10.0, State.LOADING), (50.0, State.ONLINE), (60.0, State.PAUSED)):
        state.handle(seen.NodeReported(now, "a", link, a_report("m", state=reported)))
    assert refused(state, 61.0).loads_in_seconds == 40.0
    state.handle(seen.NodeReported(70.0, "a", link, a_report("m", state=State.LOADING)))
    state.handle(seen.LinkClosed(80.0, "a", link, "cut"))
    served = state.roster.served("m")
    assert served is not None
    assert (served.loading, served.load_seconds) == ({}, 40.0), "what was lost is not being loaded"


def test_who_waited_for_a_load_in_vain_is_told_so_as_well() -> None:
    state, link = unloaded()
    for now, reported in ((1.0, State.ONLINE), (2.0, State.LOADING)):
        state.handle(seen.NodeReported(now, "a", link, a_report("m", state=reported)))
    assert ask(state, now=3.0)[1] == [], "it may be back in a moment"
    [refusal] = state.handle(seen.Tick(3.0 + WAIT_SECONDS_MAX))
    assert isinstance(refusal, do.RefuseRequest)
    assert isinstance(refusal.why, do.NoNode)
    assert refusal.why.loading


def test_where_somebody_serves_it_nothing_is_said_of_loading() -> None:
    state, _ = unloaded()
    link = link_node(state, "b", "m")
    state.handle(seen.NodeDraining(1.0, "b", link, 30.0))
    why = refused(state, 2.0)
    assert (why.loads_in_seconds, why.retry_after_seconds) == (None, 2.0)
