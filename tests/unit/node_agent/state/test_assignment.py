"""Which of the owner's models are loaded: what coordinators assign, within the owner's memory."""

from __future__ import annotations

import pytest

from shrk_contract.terms import ModelOutcome, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.assignment import NO_ROOM, NO_ROOM_YET, NOT_ASSIGNED, STOPPING, Assignment
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.engines import UNLOAD_SECONDS
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from support.states import CHAT, PIN

NEEDS = (Need("a", "a", 6), Need("b", "b", 6), Need("c", "c", 4))


@pytest.fixture
def node() -> NodeState:
    """Room for one large and one small model."""
    node = NodeState(NEEDS, memory_bytes=10)
    node.handle(seen.Tick(0.0))
    for engine in ("a", "c"):
        ready(node, engine)
    return node


def ready(node: NodeState, engine: str, now: float = 0.0) -> None:
    node.handle(seen.EngineBecameReady(now, engine, PIN, (CHAT,), 4, 4096))


def assign(node: NodeState, *models: str, revision: int = 1, now: float = 1.0) -> list[Effect]:
    return list(node.handle(seen.Assigned(now, 1, revision, models)))


def ended(node: NodeState, engine: str, now: float) -> None:
    node.handle(seen.EngineEnded(now, engine, "it was stopped", incompatible=False))


def states(node: NodeState) -> dict[str, State]:
    return {engine.id: engine.state for engine in node.engines.values()}


def test_before_a_coordinator_has_spoken_all_is_loaded_that_fits_in_the_owners_order(node: NodeState) -> None:
    assert states(node) == {"a": State.ONLINE, "b": State.PAUSED, "c": State.ONLINE}
    assert [report.memory_bytes for report in node.reports(0.0, 0)] == [6, 6, 4]
    unbounded = NodeState(NEEDS)
    assert {e.engine for e in unbounded.handle(seen.Tick(0.0)) if isinstance(e, do.StartEngine)} == {"a", "b", "c"}


def test_what_is_not_wanted_any_more_is_unloaded_before_what_takes_its_place_is_loaded(node: NodeState) -> None:
    [told, _] = assign(node, "b", "c")
    assert told == do.TellAssigned(1, 1, (ModelOutcome("b", True), ModelOutcome("c", True)))
    assert states(node) == {"a": State.DRAINING, "b": State.STARTING, "c": State.ONLINE}
    effects = node.handle(seen.Tick(1.0))
    assert [e for e in effects if not isinstance(e, do.TellStatus)] == [do.UnloadEngine("a")]
    assert do.StartEngine("b") not in node.handle(seen.Tick(1.25))
    ended(node, "a", 2.0)
    assert do.StartEngine("b") in node.handle(seen.Tick(2.25))
    assert states(node)["a"] is State.PAUSED
    assert node.engines["a"].reason == NOT_ASSIGNED
    assert do.StartEngine("a") not in node.handle(seen.Tick(1_000.0)), "nobody starts it again"


def test_what_it_still_answers_may_end_for_a_while_and_nothing_new_is_taken(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(0.5, (1, 1), "a", CHAT))
    assign(node, "c")
    [rejected] = node.handle(seen.AttemptAsked(1.0, (1, 2), "a", CHAT))
    assert isinstance(rejected, do.RejectAttempt)
    assert do.UnloadEngine("a") not in node.handle(seen.Tick(UNLOAD_SECONDS))
    assert do.UnloadEngine("a") in node.handle(seen.Tick(1.0 + UNLOAD_SECONDS))
    assert do.UnloadEngine("a") not in node.handle(seen.Tick(2.0 + UNLOAD_SECONDS)), "it is ended once"


def test_it_is_unloaded_as_soon_as_its_last_answer_is_out(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(0.5, (1, 1), "a", CHAT))
    assign(node, "c")
    node.handle(seen.AttemptEnded(3.0, (1, 1)))
    assert do.UnloadEngine("a") in node.handle(seen.Tick(3.25))


def test_who_is_wanted_again_while_it_drains_stays(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(0.5, (1, 1), "a", CHAT))
    assign(node, "c")
    assign(node, "a", "c", revision=2, now=2.0)
    assert states(node)["a"] is State.ONLINE
    assert do.UnloadEngine("a") not in node.handle(seen.Tick(2.0 + UNLOAD_SECONDS))


def test_who_is_wanted_again_while_it_is_being_ended_is_started_anew(node: NodeState) -> None:
    assign(node, "c")
    node.handle(seen.Tick(1.0))
    assign(node, "a", "c", revision=2, now=1.5)
    ended(node, "a", 2.0)
    assert do.StartEngine("a") in node.handle(seen.Tick(60.0))


def test_the_owner_has_the_last_word(node: NodeState) -> None:
    [told, _] = assign(node, "a", "b", "unknown")
    assert isinstance(told, do.TellAssigned)
    assert [(o.model, o.obeyed) for o in told.outcomes] == [("a", True), ("b", False), ("unknown", False)]
    assert "fit" in told.outcomes[1].reason
    assert "owner" in told.outcomes[2].reason


def test_the_owner_reads_why_a_model_is_not_loaded(node: NodeState) -> None:
    def reasons() -> dict[str, str]:
        return {report.model: report.status.reason for report in node.reports(0.0, 0)}

    assert reasons() == {"a": "", "b": NO_ROOM_YET, "c": ""}, "no coordinator has spoken"
    assign(node, "a", "b")
    assert reasons() == {"a": "", "b": NO_ROOM, "c": NOT_ASSIGNED}
    node.handle(seen.Tick(1.0))
    assign(node, "a", "c", "b", revision=2, now=1.5)
    assert reasons() == {"a": "", "b": NO_ROOM, "c": ""}
    assign(node, "a", revision=3, now=2.0)
    assert reasons() == {"a": "", "b": NOT_ASSIGNED, "c": NOT_ASSIGNED}
    assign(node, "a", "b", "c", revision=4, now=2.5)
    ended(node, "c", 3.0)
    assert reasons()["b"] == NO_ROOM


def test_how_long_a_model_has_not_been_loaded_does_not_begin_anew_with_each_assignment(node: NodeState) -> None:
    assign(node, "a", "c", now=5.0)
    assert node.engines["b"].since == 0.0


def test_an_older_assignment_changes_nothing(node: NodeState) -> None:
    assign(node, "c", revision=5)
    assert assign(node, "a", revision=4) == []
    assert list(node.assignment.seats) == ["c"]


def test_an_engine_on_its_way_up_that_is_not_wanted_is_ended_as_well(node: NodeState) -> None:
    node = NodeState(NEEDS, memory_bytes=10)
    node.handle(seen.Tick(0.0))
    assign(node, "c")
    assert do.UnloadEngine("a") in node.handle(seen.Tick(1.0))
    node.handle(seen.EngineProgressed(1.1, "a", "loading weights", 0.5))
    assert states(node)["a"] is State.DRAINING
    ended(node, "a", 1.5)
    assert states(node)["a"] is State.PAUSED


def test_an_engine_that_waits_for_its_next_start_is_just_not_started(node: NodeState) -> None:
    ended(node, "a", 1.0)
    assign(node, "c", now=1.1)
    assert states(node)["a"] is State.PAUSED
    assert do.StartEngine("a") not in node.handle(seen.Tick(1_000.0))


def test_a_node_that_stops_obeys_no_assignment_and_what_runs_may_end(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(0.5, (1, 1), "a", CHAT))
    node.handle(seen.DrainAsked(0.5))
    # Its place has been taken by another node.
    assert assign(node) == [do.TellAssigned(1, 1, ())]
    assert assign(node, "b", revision=2) == [do.TellAssigned(1, 2, (ModelOutcome("b", False, STOPPING),))]
    assert assign(node, "a", revision=1) == [], "an older one is not answered"
    for now in (2.0, 2.0 + UNLOAD_SECONDS, 100.0):
        effects = node.handle(seen.Tick(now))
        assert not [e for e in effects if isinstance(e, do.UnloadEngine | do.StartEngine)]
    assert states(node)["a"] is State.ONLINE


def test_what_was_being_unloaded_when_the_node_stops_may_take_as_long_as_the_rest(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(0.5, (1, 1), "a", CHAT))
    assign(node, "c")
    node.handle(seen.DrainAsked(2.0))
    assert do.UnloadEngine("a") not in node.handle(seen.Tick(1.0 + UNLOAD_SECONDS))


def test_nothing_that_is_assigned_is_more_than_fits() -> None:
    assignment = Assignment.at_start(NEEDS, memory_bytes=10)
    assignment.assigned((1, 1), ("b", "a", "c"), {})
    assert list(assignment.seats) == ["b", "c"]
