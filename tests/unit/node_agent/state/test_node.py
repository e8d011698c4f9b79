"""The agent's one door: engines that come and go, and what work is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shrk_contract.terms import Endpoint, Pin, Rejection, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.engines import HUNG
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import WAITING_MAX, NodeState

CHAT, EMBEDDINGS = Endpoint.CHAT_COMPLETIONS, Endpoint.EMBEDDINGS


def ready(engine: str, now: float = 1.0, slots: int = 2) -> seen.EngineBecameReady:
    return seen.EngineBecameReady(now, engine, Pin(engine="sim"), (CHAT,), slots, 4096)


@pytest.fixture
def node() -> NodeState:
    state = NodeState([Need("m", "m"), Need("other", "other")])
    state.handle(seen.Tick(0.0))
    state.handle(ready("m"))
    return state


def test_every_engine_is_started_once_at_the_first_tick() -> None:
    state = NodeState([Need("m", "m"), Need("other", "other")])
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
        node.handle(ready("m", now))
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


def ticks(node: NodeState, began: float, seconds: float) -> list[Effect]:
    """All that the ticks of this time ask for."""
    times = [began + 0.25 * n for n in range(int(seconds / 0.25))]
    return [effect for now in times for effect in node.handle(seen.Tick(now))]


def test_an_engine_that_gives_no_token_is_looked_at_asked_and_ended_in_this_order(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(1.0, (1, 1), "m", CHAT))
    effects = ticks(node, 1.0, 20)
    kinds = [type(effect) for effect in effects]
    assert effects[-2:] == [do.RestartEngine("m", HUNG), do.TellStatus()]
    assert set(kinds[:-2]) == {do.ReadFigures, do.AskCanary}
    assert kinds.index(do.ReadFigures) < kinds.index(do.AskCanary)


def test_nothing_is_placed_in_an_engine_that_is_being_ended(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(1.0, (1, 1), "m", CHAT))
    before = node.revision
    ticks(node, 1.0, 20)
    assert node.revision == before + 1, "it is told at once"
    [refused] = node.handle(seen.AttemptAsked(21.0, (1, 2), "m", CHAT))
    assert isinstance(refused, do.RejectAttempt)
    report = next(r for r in node.reports(21.0, 1_000_000) if r.model == "m")
    assert (report.status.state, report.status.reason) == (State.STARTING, HUNG)
    node.handle(seen.EngineEnded(22.0, "m", "Stopped", incompatible=False))
    assert do.StartEngine("m") in node.handle(seen.Tick(23.0))


@pytest.mark.parametrize(
    "sign",
    [
        lambda now: seen.AnswersMoved(now, "m", 0),
        lambda now: seen.FiguresRead(now, "m", (str(now),)),
        lambda now: seen.CanaryAnswered(now, "m"),
    ],
    ids=["tokens", "figures", "a canary"],
)
def test_an_engine_that_shows_life_is_not_ended(node: NodeState, sign: Callable[[float], seen.Event]) -> None:
    node.handle(seen.AttemptAsked(1.0, (1, 1), "m", CHAT))
    for now in range(1, 100):
        assert not any(isinstance(e, do.RestartEngine) for e in ticks(node, now, 1.0))
        assert node.handle(sign(now + 1.0)) == []


def test_what_an_engine_tells_after_its_end_changes_nothing(node: NodeState) -> None:
    node.handle(seen.EngineEnded(2.0, "m", "killed", incompatible=False))
    before = node.revision
    for event in (
        seen.AnswersMoved(3.0, "m", 1),
        seen.FiguresRead(3.0, "m", ("1",)),
        seen.CanaryAnswered(3.0, "m"),
    ):
        assert node.handle(event) == []
    assert node.revision == before


def test_a_hang_is_noticed_while_the_node_drains_and_ends_what_is_waited_for(node: NodeState) -> None:
    node.handle(seen.AttemptAsked(1.0, (1, 1), "m", CHAT))
    node.handle(seen.DrainAsked(1.0))
    assert do.RestartEngine("m", HUNG) in ticks(node, 1.0, 20)


def test_reports_count_the_starts_of_each_engine(node: NodeState) -> None:
    assert [report.life for report in node.reports(2.0, 0)] == [1, 1]
    node.handle(seen.EngineEnded(2.0, "m", "killed", incompatible=False))
    node.handle(seen.Tick(3.0))
    assert [report.life for report in node.reports(3.0, 0)] == [2, 1]


def left_alone() -> NodeState:
    state = NodeState([Need("m", "m"), Need("other", "other")])
    for now in range(0, 500, 100):
        state.handle(seen.Tick(float(now)))
        state.handle(seen.EngineEnded(now + 1.0, "m", "gone", incompatible=False))
    assert state.engines["m"].state is State.INCOMPATIBLE
    return state


@pytest.mark.parametrize("model", ["m", None])
def test_an_engine_that_was_left_alone_starts_when_its_owner_asks_for_it_or_for_all(model: str | None) -> None:
    state = left_alone()
    assert state.handle(seen.Tick(1_000.0)) == []
    assert state.handle(seen.RetryAsked(1_001.0, model)) == [do.TellStatus()]
    assert state.handle(seen.Tick(1_001.0)) == [do.StartEngine("m"), do.TellStatus()]


def test_asking_for_another_model_changes_nothing() -> None:
    assert left_alone().handle(seen.RetryAsked(1_001.0, "other")) == []
    assert left_alone().handle(seen.RetryAsked(1_001.0, "nobody")) == []


def test_a_node_whose_only_model_is_on_its_way_is_downloading() -> None:
    state = NodeState([Need("m", "m")])
    state.handle(seen.Tick(0.0))
    state.handle(seen.EngineProgressed(1.0, "m", "downloading: 1.0 GB of 2.0 GB", 0.5, downloading=True))
    assert state.status() == (State.DOWNLOADING, "downloading: 1.0 GB of 2.0 GB")
    [report] = state.reports(1.0, 0)
    assert (report.status.state, report.progress) == (State.DOWNLOADING, 0.5)
