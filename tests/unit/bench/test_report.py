"""The table, and the words about where the bench was itself the bottleneck."""

from __future__ import annotations

from bench.figures import Figure, figure
from bench.report import table, warnings


def once(value: float) -> Figure:
    return figure([value])


def test_added_latency_is_what_the_coordinator_adds_to_no_gateway() -> None:
    text = table({"latency.p50_ms": once(0.25)}, {1: {"latency.p50_ms": figure([1.0, 1.25, 1.75])}})
    assert "1.00 (0.75 to 1.50)" in text


def test_the_prototypes_figure_stands_below_ours_for_the_same_number_of_agents() -> None:
    measured = {agents: {"paced.cpu_seconds_per_1m_chunks": once(20.0)} for agents in (1, 32, 5)}
    ours, prototype = table({}, measured).splitlines()[1:]
    assert ours.split()[-3:] == ["20.0", "20.0", "20.0"]
    assert prototype.split() == ["(prototype)", "12.0", "31.0", "-"]


def test_a_scenario_that_did_not_run_has_no_row() -> None:
    assert "alone" not in table({}, {1: {"requests.requests_per_second": once(1.0)}})


def test_a_busy_generator_is_named() -> None:
    measured = {8: {"paced.cores_generator": once(0.95), "paced.cores_gateway": once(0.99)}}
    assert warnings(measured) == ["paced, 8 agents: the generator used 0.95 of a core"]
