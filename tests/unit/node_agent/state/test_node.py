"""The agent's one door: engines that come and go, and what work is taken."""

from __future__ import annotations

import pytest

from shrk_contract.terms import Endpoint, Pin, Rejection, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.node import WAITING_MAX, NodeState

CHAT, EMBEDDINGS = Endpoint.CHAT_COMPLETIONS, Endpoint.EMBEDDINGS


def ready(engine: str, now: float = 1.0, slots: int = 2) -> seen.EngineBecameReady:
    return seen.EngineBecameReady(now, engine, Pin(engine="sim"), (CHAT,), slots, 4096)


@pytest.fixture
def node() -> NodeState:
    state = NodeState([("m", "m"), ("other", "other")])
    state.handle(seen.Tick(0.0))
    state.handle(ready("m"))
    return state


def test_every_engine_is_started_once_at_the_first_tick() -> None:
    state = NodeState([("m", "m"), ("other", "other")])
    assert state.handle(seen.Tick(0.0)) == [do.StartEngine("m"), do.StartEngine("other"), do.TellStatus()]
    assert state.handle(seen.Tick(0.1)) == []


def test_an_attempt_for_a_model_that_is_served_runs(node: NodeState) -> None:
    assert node.handle(seen.AttemptAsked(1.0, (1, 1), "m", CHAT)) == [do.RunAttempt((1, 1), "m")]


@pytest.mark.parametrize(
    ("model", "endpoint", "reason"),
    [("nobody", CHAT, Rejection.TERMS), ("other", CHAT, Rejection.TERMS), ("m", EMBEDDINGS, Rejection.UNSUPPORTED)],
)
def test_what_is_not_served_is_rejected_with_its_reason(
    node: NodeState, model: str, endpoint: Endpoint, reason: Rejection
) -> None:
    [effect] = node.handle(seen.AttemptAsked(1.0, (1, 1), model, endpoint))
    assert isinstance(effect, do.RejectAttempt)
    assert effect.reason is reason


def test_a_full_queue_says_busy_until_something_ends(node: NodeState) -> None:
    for stream in range(2 + WAITING_MAX):
        assert isinstance(node.handle(seen.AttemptAsked(1.0, (1, stream), "m", CHAT))[0], do.RunAttempt)
    [refused] = node.handle(seen.AttemptAsked(1.0, (2, 0), "m", CHAT))
    assert isinstance(refused, do.RejectAttempt)
    assert refused.reason is Rejection.BUSY
    node.handle(seen.AttemptEnded(1.0, (1, 0)))
    assert isinstance(node.handle(seen.AttemptAsked(1.0, (2, 1), "m", CHAT))[0], do.RunAttempt)


def test_a_draining_node_takes_nothing_and_starts_nothing(node: NodeState) -> None:
    node.handle(seen.DrainAsked(2.0))
    [refused] = node.handle(seen.AttemptAsked(2.0, (1, 1), "m", CHAT))
    assert isinstance(refused, do.RejectAttempt)
    assert refused.reason is Rejection.DRAINING
    node.handle(seen.EngineEnded(2.0, "m", "stopped", incompatible=False))
    assert node.handle(seen.Tick(100.0)) == []
    assert node.status()[0] is State.DRAINING


def test_an_engine_that_ends_is_started_again_later_and_later(node: NodeState) -> None:
    now, waits = 2.0, []
    for _ in range(8):
        node.handle(seen.EngineEnded(now, "m", "killed", incompatible=False))
        began = now
        while not any(isinstance(e, do.StartEngine) for e in node.handle(seen.Tick(now))):
            now += 0.5
        waits.append(now - began)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_engine_that_was_up_for_long_starts_counting_anew(node: NodeState) -> None:
    for now in (2.0, 4.0):
        node.handle(seen.EngineEnded(now, "m", "killed", incompatible=False))
    node.handle(ready("m", now=10.0))
    node.handle(seen.EngineEnded(1000.0, "m", "killed", incompatible=False))
    assert do.StartEngine("m") in node.handle(seen.Tick(1001.0))


def test_an_incompatible_engine_is_not_started_again_and_says_why(node: NodeState) -> None:
    node.handle(seen.EngineEnded(2.0, "m", "OSError: no such model", incompatible=True))
    assert node.handle(seen.Tick(10_000.0)) == []
    report = next(r for r in node.reports(3.0, 1_000_000) if r.model == "m")
    assert (report.status.state, report.status.reason) == (State.INCOMPATIBLE, "OSError: no such model")
    assert report.status.next_action


def test_reports_tell_what_runs_and_what_waits_and_since_when(node: NodeState) -> None:
    for stream in range(3):
        node.handle(seen.AttemptAsked(1.0, (1, stream), "m", CHAT))
    report = next(r for r in node.reports(11.0, 1_000_000) if r.model == "m")
    assert (report.running, report.waiting, report.slots) == (2, 1, 2)
    assert report.status.since_unix_ms == 990_000


def test_a_change_of_the_link_is_told_and_wakes_those_who_wait_for_changes(node: NodeState) -> None:
    before = node.revision
    assert node.handle(seen.LinkChanged(2.0)) == [do.TellStatus()]
    assert node.revision == before + 1


def test_progress_is_told_once_for_each_change(node: NodeState) -> None:
    progress = seen.EngineProgressed(2.0, "other", "loading weights", 0.5)
    assert node.handle(progress) == [do.TellStatus()]
    assert node.handle(progress) == []
    assert node.status()[0] is State.ONLINE
