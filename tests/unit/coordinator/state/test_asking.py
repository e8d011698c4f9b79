"""Those that wait: who is looked at when something is new about a node, and how many when only time has passed."""

from __future__ import annotations

import random

from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.asking import HEADS, MISSED_MAX
from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS
from shrk_coordinator.state.coordinator import CoordinatorState
from support.states import a_report, ask, link_node


def full(state: CoordinatorState, node: str, *models: str) -> int:
    """A node that works for others as much as it can; its link."""
    link = link_node(state, node, *models, slots=1)
    for model in models:
        state.roster.nodes[node].offers[model].outside = 10
    return link


def started(effects: object) -> list[do.StartAttempt]:
    assert isinstance(effects, list)
    return [effect for effect in effects if isinstance(effect, do.StartAttempt)]


def test_a_report_of_a_node_that_has_room_again_gives_its_place_to_whoever_waits() -> None:
    state = CoordinatorState(random.Random(1))
    link = full(state, "a", "m")
    full(state, "b", "m")
    request_id, effects = ask(state)
    assert effects == []
    # What the node said last was that it is full.
    report = seen.NodeReported(1.0, "a", link, a_report("m", slots=1))
    [place] = started(list(state.handle(report)))
    assert (place.request_id, place.node_id) == (request_id, "a")


def test_time_alone_lets_a_waiting_request_probe_a_node_that_failed() -> None:
    state = CoordinatorState(random.Random(1))
    full(state, "busy", "m")
    link_node(state, "failing", "m")
    for _ in range(FAILURES_MAX):
        state.roster.nodes["failing"].offers["m"].standing.failed(0.0)
    _, effects = ask(state, now=OPEN_SECONDS - 1)
    assert effects == []
    state.roster.nodes["failing"].heard(OPEN_SECONDS)
    state.roster.nodes["busy"].heard(OPEN_SECONDS)
    [place] = started(list(state.handle(seen.Tick(OPEN_SECONDS))))
    assert place.node_id == "failing"


def test_one_tick_looks_at_some_models_and_the_next_goes_on_with_the_others() -> None:
    state = CoordinatorState(random.Random(1))
    models = [f"m{number}" for number in range(3 * MISSED_MAX // HEADS)]
    for model in models:
        full(state, f"node-of-{model}", model)
        for _ in range(HEADS):
            ask(state, model)
    for model in models:
        # Nobody tells: only a look finds it.
        state.roster.nodes[f"node-of-{model}"].offers[model].outside = 0
    placed: list[int] = []
    for tick in range(1, 4):
        placed.append(len(started(list(state.handle(seen.Tick(tick / 4))))))
    # One slot each: whoever finds it takes it, and the others of the model wait on.
    assert sum(placed) == len(models)
    assert all(0 < count < len(models) for count in placed)
