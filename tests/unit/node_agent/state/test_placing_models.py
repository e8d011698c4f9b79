"""Which of the owner's models run on which GPUs, and what each GPU's heat and loss mean to those on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from shrk_contract.terms import Endpoint, ModelOutcome, Pin, Rejection, State
from shrk_node_agent.state import effects as do
from shrk_node_agent.state import events as seen
from shrk_node_agent.state.assignment import NOT_ASSIGNED, NOT_SERVED
from shrk_node_agent.state.devices import GpuProcess, GpuReading
from shrk_node_agent.state.effects import Effect
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.node import NodeState
from shrk_node_agent.state.terms.fit import Model
from shrk_node_agent.state.terms.terms import Terms, Wanted

CHAT = Endpoint.CHAT_COMPLETIONS
NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
GB = 10**9
GIB = 1 << 30


def gpu(index: int, celsius: float | None = 40.0, free: int | None = None, lost: bool = False) -> GpuReading:
    return GpuReading(f"GPU-{index}", index, "card", 24 * GIB, free, celsius, lost=lost)


def need(name: str, gigabytes: float) -> Need:
    return Need(name, name, size=Model(name, memory_bytes=int(gigabytes * GB)))


def a_node(*needs: Need, gpus: Sequence[GpuReading] = (gpu(0), gpu(1))) -> NodeState:
    """One whose GPUs have been read, and whose engines are up as far as they were started."""
    node = NodeState(needs, terms=Terms(Wanted(cap=70.0, gpus=True)))
    assert not starts(node.handle(seen.Tick(0.0, NOON))), "nobody knows yet where"
    read(node, 0.1, *gpus)
    read(node, 0.2, *gpus)
    for engine in starts(node.handle(seen.Tick(0.25, NOON))):
        ready(node, 0.5, engine)
    return node


def read(node: NodeState, now: float, *gpus: GpuReading) -> list[Effect]:
    return list(node.handle(seen.SensorsRead(now, tuple(gpus), {}, frozenset())))


def ready(node: NodeState, now: float, engine: str) -> None:
    node.handle(seen.EngineBecameReady(now, engine, Pin(), (CHAT,), 4, 4096))


def starts(effects: Sequence[Effect]) -> dict[str, tuple[str, ...]]:
    """Who is started, on which GPUs."""
    return {e.engine: e.seat.devices for e in effects if isinstance(e, do.StartEngine)}


def devices(node: NodeState) -> dict[str, list[int]]:
    return {engine.id: node.gpus_of(engine) for engine in node.engines.values() if engine.seat is not None}


def ask(node: NodeState, now: float, model: str, stream: int = 1) -> Effect:
    [effect] = node.handle(seen.AttemptAsked(now, (1, stream), model, CHAT))
    return effect


def test_models_go_where_they_fit_a_large_one_on_all_and_the_last_nowhere() -> None:
    node = a_node(need("a", 15), need("b", 15), need("c", 5), need("d", 15))
    assert devices(node) == {"a": [0], "b": [1], "c": [0]}
    assert node.engines["d"].state is State.PAUSED
    assert "needs 15.0 GB, GPU 1 has 8.7 GB left" in node.engines["d"].reason
    node.handle(seen.Assigned(1.0, 1, 1, ("a",)))
    assert node.engines["d"].reason == NOT_ASSIGNED
    never = a_node(need("a", 15), need("huge", 90))
    never.handle(seen.Assigned(1.0, 1, 1, ("a",)))
    assert "It is too large for this machine: needs 90.0 GB" in never.engines["huge"].reason, "whoever wants it"
    guessed = a_node(Need("b", "b", size=Model("b", 70.0)))
    assert guessed.engines["b"].reason.endswith("write what it takes in all as its `memory_gb`")
    spread = a_node(need("large", 40))
    assert devices(spread) == {"large": [0, 1]}


def test_what_no_other_model_could_use_is_shared_out_unless_the_owner_has_said_how_much() -> None:
    guessed = Need("a", "a", size=Model("a", 3.0))
    node = a_node(guessed, gpus=[gpu(0)])
    seat = node.engines["a"].seat
    assert seat is not None
    assert seat.bytes_each > 20 * GB > seat.needed_each
    said = a_node(need("b", 5), gpus=[gpu(0)]).engines["b"].seat
    assert said is not None
    assert (said.bytes_each, said.device_bytes) == (5 * GB, 24 * GIB)
    catalogue = a_node(guessed, replace(need("not served", 18), served=False), gpus=[gpu(0)])
    seat = catalogue.engines["a"].seat
    assert seat is not None
    assert (seat.bytes_each, list(catalogue.engines)) == (seat.needed_each, ["a"]), "its owner may want the other, too"
    beside = a_node(guessed, need("too much beside it", 18), gpus=[gpu(0)]).engines["a"].seat
    assert beside is not None
    assert beside.bytes_each == beside.needed_each, "a coordinator may want the other one here, in place of neither"


def test_coordinators_hear_what_each_model_takes_and_what_there_is() -> None:
    node = a_node(need("a", 15), Need("unknown", "unknown"), gpus=[gpu(0), gpu(1)])
    sizes = {report.model: report.memory_bytes for report in node.reports(1.0, 0)}
    assert sizes == {"a": 15 * GB, "unknown": int(24 * GIB * 0.92)}
    assert node.assignment.bound_bytes == 2 * int(24 * GIB * 0.92)


def test_what_a_coordinator_wants_is_loaded_once_its_place_is_free_and_declined_where_there_is_none() -> None:
    node = a_node(need("a", 15), need("b", 15), gpus=[gpu(0)])
    assert devices(node) == {"a": [0]}
    [told, *_] = node.handle(seen.Assigned(1.0, 1, 1, ("a", "b")))
    assert isinstance(told, do.TellAssigned)
    assert [(o.model, o.obeyed) for o in told.outcomes] == [("a", True), ("b", False)]
    assert "GPU 0 has 8.7 GB left" in told.outcomes[1].reason
    node.handle(seen.Assigned(2.0, 1, 2, ("b",)))
    assert not starts(node.handle(seen.Tick(2.25, NOON)))
    node.handle(seen.EngineEnded(3.0, "a", "stopped", False))
    assert not starts(node.handle(seen.Tick(3.25, NOON))), "what the last reading told of its memory was before"
    read(node, 3.5, gpu(0))
    assert starts(node.handle(seen.Tick(3.75, NOON))) == {"b": ("GPU-0",)}


def test_who_is_loaded_keeps_its_gpu_whatever_is_assigned_beside_it() -> None:
    node = a_node(need("a", 12), need("b", 12), need("c", 8))
    assert devices(node) == {"a": [0], "b": [1], "c": [0]}
    node.handle(seen.Assigned(1.0, 1, 1, ("b",)))
    for engine in ("a", "c"):
        node.handle(seen.Tick(1.25, NOON))
        node.handle(seen.EngineEnded(2.0, engine, "stopped", False))
    read(node, 2.5, gpu(0), gpu(1))
    node.handle(seen.Assigned(3.0, 1, 2, ("a", "c", "b")))
    assert node.engines["b"].seat is not None
    assert devices(node)["b"] == [1]
    assert starts(node.handle(seen.Tick(3.25, NOON)))["a"] in (("GPU-0",), ("GPU-1",))


def test_an_engine_waits_while_another_program_holds_the_memory_and_says_so() -> None:
    # Of many small ones, none of which counts as somebody.
    full = replace(gpu(0, free=4 * GB), processes=())
    node = a_node(need("a", 15), gpus=[full])
    assert node.engines["a"].seat is None
    assert node.engines["a"].state is State.STARTING
    assert "GPU 0, where 3.9 GB are free: other programs hold the rest" in node.engines["a"].reason
    for second in range(1, 121):
        read(node, float(second), replace(full, memory_free_bytes=25 * GB))
    assert starts(node.handle(seen.Tick(121.0, NOON))) == {"a": ("GPU-0",)}


def test_a_hot_gpu_keeps_back_its_own_models_only() -> None:
    node = a_node(need("a", 15), need("b", 15))
    assert isinstance(ask(node, 1.0, "a", 1), do.RunAttempt)
    for now in (2.0, 3.0):
        read(node, now, gpu(0, 69.0), gpu(1))
    refused = ask(node, 3.0, "a", 2)
    assert isinstance(refused, do.RejectAttempt)
    assert (refused.reason, "GPU 0: 69 °C of 70 °C" in refused.message) == (Rejection.TERMS, True)
    assert isinstance(ask(node, 3.0, "b", 3), do.RunAttempt)
    assert (node.status()[0], node.kept_back) == (State.ONLINE, "")
    assert node.since_of(node.engines["a"]) == 2.0, "it cools since then, however long it has served"
    told = {report.model: report.status for report in node.reports(3.0, 0)}
    assert (told["a"].state, told["b"].state) == (State.COOLING, State.ONLINE)
    assert "GPU 0: 69 °C of 70 °C" in told["a"].reason


def test_models_of_a_gpu_that_is_lost_go_to_another_that_has_room() -> None:
    node = a_node(need("a", 10), need("b", 15))
    assert devices(node) == {"a": [0], "b": [1]}
    read(node, 2.0, gpu(0), gpu(1, None, lost=True))
    effects = node.handle(seen.Tick(2.25, NOON))
    assert do.UnloadEngine("b") in effects
    assert do.UnloadEngine("a") not in effects
    node.handle(seen.EngineEnded(3.0, "b", "stopped", False))
    assert not starts(node.handle(seen.Tick(3.25, NOON)))
    assert node.engines["b"].state is State.PAUSED
    assert "needs 15.0 GB, GPU 0 has 13.7 GB left" in node.engines["b"].reason
    for now in range(4, 44):
        read(node, float(now), gpu(0), gpu(1))
    assert starts(node.handle(seen.Tick(44.25, NOON))) == {"b": ("GPU-1",)}, "once it is known to be cool"
    small = a_node(need("a", 10), need("c", 5), need("b", 15))
    assert devices(small)["b"] == [1]
    read(small, 2.0, gpu(0, None, lost=True), gpu(1))
    small.handle(seen.Tick(2.25, NOON))
    small.handle(seen.EngineEnded(3.0, "c", "stopped", False))
    read(small, 3.1, gpu(0, None, lost=True), gpu(1))
    assert starts(small.handle(seen.Tick(3.25, NOON))) == {"c": ("GPU-1",)}


def test_a_model_taken_off_the_list_is_unloaded_and_one_put_on_it_is_loaded() -> None:
    needs = (need("a", 10), need("b", 10))
    node = a_node(needs[0], gpus=[gpu(0)])
    node.handle(seen.ModelsChanged(1.0, needs))
    assert starts(node.handle(seen.Tick(1.25, NOON))) == {"b": ("GPU-0",)}
    ready(node, 2.0, "b")
    node.handle(seen.ModelsChanged(3.0, needs[1:]))
    refused = ask(node, 3.1, "a")
    assert isinstance(refused, do.RejectAttempt)
    assert (node.engines["a"].state, node.engines["a"].reason) == (State.DRAINING, NOT_SERVED)
    assert do.UnloadEngine("a") in node.handle(seen.Tick(3.25, NOON))
    node.handle(seen.EngineEnded(4.0, "a", "stopped", False))
    node.handle(seen.Tick(4.25, NOON))
    assert [report.model for report in node.reports(5.0, 0)] == ["b"]
    assert [outcome.obeyed for outcome in assigned(node, "a")] == [False]


def test_nothing_is_loaded_on_a_gpu_that_may_take_no_work() -> None:
    for celsius in (69.0, None):
        node = NodeState([need("a", 15)], terms=Terms(Wanted(cap=70.0, gpus=True)))
        for second in range(20):
            read(node, float(second), gpu(0, celsius))
            assert not starts(node.handle(seen.Tick(second + 0.5, NOON)))
        assert "GPU 0" in node.reports(20.0, 0)[0].status.reason


def test_a_poll_that_does_not_tell_the_memory_promises_nothing_twice() -> None:
    untold = replace(gpu(0), memory_bytes=0)
    node = a_node(need("a", 15), need("b", 15), gpus=[untold])
    assert devices(node) == {"a": [0]}
    for second in range(1, 5):
        read(node, float(second), gpu(0))
        assert not starts(node.handle(seen.Tick(second + 0.5, NOON)))
    told = a_node(need("a", 15), gpus=[gpu(0)])
    read(told, 2.0, untold)
    assert told.assignment.gpus is not None
    assert told.assignment.gpus[0].memory_bytes == 24 * GIB


def test_a_node_whose_only_engine_that_serves_is_too_hot_cools() -> None:
    node = a_node(need("a", 15), need("b", 15))
    node.handle(seen.EngineEnded(1.0, "b", "it does not load", incompatible=True))
    for now in (2.0, 3.0):
        read(node, now, gpu(0, 69.0), gpu(1))
    assert node.status() == (State.COOLING, node.engines["a"].permit.reason)
    assert "GPU 0: 69 °C of 70 °C" in node.kept_back


def test_what_is_of_no_known_size_starts_once_the_one_before_it_has_left_the_card() -> None:
    node = a_node(Need("u", "u"), Need("v", "v"), gpus=[gpu(0, free=25 * GB)])
    assert devices(node) == {"u": [0]}
    node.handle(seen.Assigned(1.0, 1, 1, ("v",)))
    held = gpu(0, free=2 * GB)
    read(node, 1.5, held)
    node.handle(seen.Tick(1.75, NOON))
    node.handle(seen.EngineEnded(2.0, "u", "stopped", False))
    assert not starts(node.handle(seen.Tick(2.25, NOON)))
    read(node, 2.5, replace(held, processes=()))
    assert not starts(node.handle(seen.Tick(2.75, NOON))), "the driver still counts what has gone"
    read(node, 3.5, gpu(0, free=25 * GB))
    assert starts(node.handle(seen.Tick(3.75, NOON))) == {"v": ("GPU-0",)}


def test_what_was_not_free_when_an_engine_began_may_be_when_it_begins_again() -> None:
    little = replace(gpu(0, free=9 * GB), processes=())
    node = a_node(Need("a", "a", size=Model("a", 1.5)), gpus=[little])
    first = node.engines["a"].seat
    assert first is not None
    assert first.bytes_each < 9 * GB
    node.handle(seen.Assigned(1.0, 1, 1, ("a",)))
    node.handle(seen.EngineEnded(2.0, "a", "it crashed", False))
    read(node, 10.0, gpu(0, free=25 * GB))
    read(node, 50.0, gpu(0, free=25 * GB))
    for second in range(51, 90):
        read(node, float(second), gpu(0, free=25 * GB))
        node.handle(seen.Tick(second + 0.5, NOON))
    again = node.engines["a"].seat
    assert again is not None
    assert again.bytes_each > 20 * GB


def test_a_model_goes_to_a_card_that_is_free_rather_than_to_one_that_its_owner_uses() -> None:
    node = a_node(need("a", 15), need("b", 15))
    node.handle(seen.Assigned(1.0, 1, 1, ("b",)))
    node.handle(seen.Tick(1.25, NOON))
    node.handle(seen.EngineEnded(2.0, "a", "stopped", False))
    node.handle(seen.Assigned(3.0, 1, 2, ()))
    node.handle(seen.Tick(3.25, NOON))
    node.handle(seen.EngineEnded(4.0, "b", "stopped", False))
    game = replace(gpu(0), processes=(GpuProcess(77, 4 * GIB),))
    for second in range(5, 15):
        read(node, float(second), game, gpu(1))
    node.handle(seen.Assigned(15.0, 1, 3, ("a",)))
    assert starts(node.handle(seen.Tick(15.25, NOON))) == {"a": ("GPU-1",)}


def test_an_answer_that_outlasts_a_model_taken_off_the_list_does_no_harm() -> None:
    node = a_node(need("a", 10), need("b", 5), gpus=[gpu(0)])
    assert isinstance(ask(node, 1.0, "a"), do.RunAttempt)
    node.handle(seen.ModelsChanged(2.0, (need("b", 5),)))
    node.handle(seen.EngineEnded(3.0, "a", "it crashed", False))
    node.handle(seen.Tick(3.25, NOON))
    node.handle(seen.AttemptEnded(4.0, (1, 1)))
    node.handle(seen.Tick(4.25, NOON))
    assert list(node.engines) == ["b"]
    node.handle(seen.ModelsChanged(5.0, (need("a", 10), need("b", 5))))
    assert (node.engines["a"].in_flight, node.engines["a"].since) == (0, 5.0)


def assigned(node: NodeState, *models: str) -> Sequence[ModelOutcome]:
    [told, *_] = node.handle(seen.Assigned(6.0, 1, 1, models))
    assert isinstance(told, do.TellAssigned)
    return told.outcomes
