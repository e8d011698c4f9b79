"""Which node loads which model: what the coordinator makes of reports, and what nodes are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shrk_contract.terms import Device, EngineReport, Host, ModelOutcome, Report, State, Status, Terms
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.breaker import OPEN_SECONDS_MAX
from shrk_coordinator.state.coordinator import HAND_OVER_SECONDS, CoordinatorState
from shrk_coordinator.state.placement import CLOSING_SECONDS, HEAT_MARGIN
from support.states import CHAT, ask, begun, link_node, new_link, only_start

TERM = 7


@pytest.fixture
def state() -> CoordinatorState:
    return CoordinatorState(term=TERM)


def a_report(loaded: tuple[str, ...], paused: tuple[str, ...] = (), memory: int = 10) -> Report:
    """A node that has room for one of its models."""
    engines = [_engine(model, State.ONLINE) for model in loaded] + [_engine(model, State.PAUSED) for model in paused]
    terms = Terms(models=(*loaded, *paused), memory_bytes=memory)
    return Report(Host("host"), Status(State.ONLINE), tuple(engines), terms=terms)


def _engine(model: str, state: State) -> EngineReport:
    return EngineReport(model, model, Status(state), endpoints=(CHAT,), slots=4, memory_bytes=10)


def dial(state: CoordinatorState, node: str, report: Report, now: float = 0.0) -> int:
    link = new_link()
    state.handle(seen.NodeHello(now, node, link, 1, f"owner-of-{node}"))
    state.handle(seen.NodeReported(now, node, link, replace(report, host=Host(node))))
    return link


def test_nodes_are_told_to_keep_what_they_have_in_the_words_of_this_start(state: CoordinatorState) -> None:
    link = dial(state, "a", a_report(("m",)))
    [told] = state.handle(seen.Reconcile(1.0))
    assert isinstance(told, do.AssignModels)
    assert (told.node_id, told.link, told.leader_term, told.models) == ("a", link, TERM, ("m",))
    assert told.revision >= 1
    assert state.handle(seen.Reconcile(2.0)) == [], "it is told once"


def test_a_model_that_nobody_serves_takes_the_place_of_one_that_others_serve(state: CoordinatorState) -> None:
    links = {node: dial(state, node, a_report(("m",), paused=("rare",))) for node in "abcd"}
    told: dict[str, tuple[str, ...]] = {}
    for second in range(1, 60):
        now = float(second)
        for effect in state.handle(seen.Reconcile(now)):
            assert isinstance(effect, do.AssignModels)
            told[effect.node_id] = effect.models
            other = tuple({"m", "rare"} - set(effect.models))
            obeys = replace(a_report(effect.models, paused=other), host=Host(effect.node_id))
            state.handle(seen.NodeAssigned(now, effect.node_id, links[effect.node_id], effect.revision, ()))
            state.handle(seen.NodeReported(now, effect.node_id, links[effect.node_id], obeys))
    assert sorted(told.values()) == [("m",), ("m",), ("rare",), ("rare",)], "as many of each as fit"


def test_a_node_that_will_not_load_a_model_says_why_and_that_is_kept(state: CoordinatorState) -> None:
    link = dial(state, "a", a_report(("m",)))
    outcomes = (ModelOutcome("m", True), ModelOutcome("x", False, "it does not fit beside the others"))
    state.handle(seen.NodeAssigned(1.0, "a", link, 3, outcomes))
    node = state.roster.nodes["a"]
    assert (node.assigned_revision, node.refused) == (3, {"x": "it does not fit beside the others"})
    dial(state, "a", a_report(("m",)), now=2.0)
    assert (node.assigned_revision, node.refused) == (0, {}), "a new link begins without an assignment"


def test_a_node_that_stops_and_so_obeys_nothing_has_not_failed(state: CoordinatorState) -> None:
    link = dial(state, "a", a_report(("m",)))
    state.handle(seen.NodeDraining(1.0, "a", link, 110.0))
    state.handle(seen.NodeAssigned(1.0, "a", link, 3, (ModelOutcome("m", False, "the node is stopping"),)))
    node = state.roster.nodes["a"]
    assert (node.assigned_revision, node.refused) == (3, {})


def test_how_many_losses_a_model_stands_is_known(state: CoordinatorState) -> None:
    for node in "ab":
        dial(state, node, a_report(("m",)))
    state.handle(seen.Reconcile(1.0))
    redundancy = state.assigning.redundancy("m")
    assert redundancy is not None
    assert (redundancy.effective_n, redundancy.degraded) == (2, True)
    dial(state, "c", a_report(("m",)))
    state.handle(seen.Reconcile(2.0))
    redundancy = state.assigning.redundancy("m")
    assert redundancy is not None
    assert (redundancy.effective_n, redundancy.degraded) == (3, False)
    assert state.assigning.redundancy("unknown") is None


def test_a_node_whose_window_is_about_to_close_gets_nothing_new_and_its_streams_are_moved(
    state: CoordinatorState,
) -> None:
    link = link_node(state, "a", "m")
    stream = begun(state)
    report = state.roster.nodes["a"].report
    assert report is not None
    link_node(state, "b", "m")
    closes = replace(report, terms=Terms(closes_in_seconds=CLOSING_SECONDS))
    state.handle(seen.NodeReported(1.0, "a", link, closes))
    assert only_start(ask(state, now=2.0)[1]).node_id == "b"
    closing = 1.0 + CLOSING_SECONDS - HAND_OVER_SECONDS
    moves: list[do.StartAttempt] = []
    for now in (closing - 1.0, closing):
        assert not moves
        for node in state.roster.nodes.values():
            node.heard(now)
        moves = [e for e in state.handle(seen.Tick(now)) if isinstance(e, do.StartAttempt) and e.node_id == "b"]
    [moved] = moves
    assert (moved.request_id, moved.after) == (stream.request_id, "node_draining")


def test_a_node_close_to_its_cap_gets_nothing_new_until_it_is_cooler(state: CoordinatorState) -> None:
    link = link_node(state, "a", "m")
    report = state.roster.nodes["a"].report
    assert report is not None

    def heated(celsius: float) -> Report:
        gpus = (Device("0", temperature_celsius=celsius), Device("1"))
        return replace(report, devices=gpus, terms=Terms(temperature_celsius_max=70.0))

    state.handle(seen.NodeReported(1.0, "a", link, heated(70.0 - HEAT_MARGIN + 0.5)))
    _, [refused] = ask(state, now=1.0)
    assert isinstance(refused, do.RefuseRequest)
    assert isinstance(refused.why, do.NoNode)
    assert refused.why.counts == (("too_hot", 1),)
    state.handle(seen.NodeReported(2.0, "a", link, heated(60.0)))
    assert only_start(ask(state, now=2.0)[1]).node_id == "a"


def test_a_node_that_went_silent_is_replaced_and_told_anew_when_it_is_back(state: CoordinatorState) -> None:
    links = {node: dial(state, node, a_report(("m",))) for node in "abc"}
    links["d"] = dial(state, "d", a_report((), paused=("m",)))
    told: dict[str, tuple[str, ...]] = {}
    for second in range(1, 80):
        now = float(second)
        for node in "bcd" if second > 40 else "abcd":
            state.handle(seen.NodeHeard(now, node, links[node]))
        state.handle(seen.Tick(now))
        told |= {e.node_id: e.models for e in state.handle(seen.Reconcile(now)) if isinstance(e, do.AssignModels)}
    assert state.roster.nodes["a"].link is None
    assert told["d"] == ("m",)
    dial(state, "a", a_report((), paused=("m",)), now=80.0)
    assert [e.node_id for e in state.handle(seen.Reconcile(81.0)) if isinstance(e, do.AssignModels)] == ["a"]


def test_a_node_where_probes_fail_is_replaced_and_begins_anew_once_it_has_unloaded(state: CoordinatorState) -> None:
    links = {node: dial(state, node, a_report(("m",))) for node in "abc"}
    spare = dial(state, "d", a_report((), paused=("m",)))
    for second in range(1, 60):
        state.handle(seen.Reconcile(float(second)))
    assert not state.assigning.assigned("d")
    breaker = state.roster.nodes["a"].standing("m").breaker
    now = 60.0
    while not breaker.sick:
        breaker.began(now)
        breaker.failed(now)
        now += OPEN_SECONDS_MAX

    def report(node: str, link: int, report: Report) -> None:
        # A report without a sequence number is never too old.
        state.handle(seen.NodeReported(now, node, link, replace(report, host=Host(node))))

    def told() -> dict[str, tuple[str, ...]]:
        effects = state.handle(seen.Reconcile(now))
        return {effect.node_id: effect.models for effect in effects if isinstance(effect, do.AssignModels)}

    report("a", links["a"], a_report(("m",)))
    assert told() == {"d": ("m",)}
    report("d", spare, a_report(("m",)))
    assert told() == {"a": ()}
    report("a", links["a"], a_report((), paused=("m",)))
    assert not breaker.sick


def test_a_node_that_cools_and_cannot_tell_how_hot_it_is_is_replaced(state: CoordinatorState) -> None:
    links = {node: dial(state, node, a_report(("m",))) for node in "abc"}
    links["d"] = dial(state, "d", a_report((), paused=("m",)))
    for second in range(1, 40):
        state.handle(seen.Reconcile(float(second)))
    blind = replace(a_report(("m",)), status=Status(State.COOLING), terms=Terms(models=("m",), kept_back="no reading"))
    state.handle(seen.NodeReported(40.0, "a", links["a"], replace(blind, host=Host("a"))))
    told = {e.node_id: e.models for e in state.handle(seen.Reconcile(41.0)) if isinstance(e, do.AssignModels)}
    assert told == {"d": ("m",)}
