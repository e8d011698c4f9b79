"""What is counted, and that a node's own words never become a label."""

from __future__ import annotations

import pytest

from shrk_contract.terms import ResumeMethod
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state.continuation import LOSSES


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_an_attempt_is_a_first_one_another_from_the_beginning_or_a_continuation() -> None:
    metrics = Metrics()
    for number, resume in ((1, None), (2, None), (3, None), (2, ResumeMethod.BY_IDS), (3, ResumeMethod.REPLAY)):
        metrics.attempted(number, resume)
    kinds = ("first", "again", "continuation")
    assert [counted(metrics, "shrk_attempts_total", kind=kind) for kind in kinds] == [1, 2, 2]


@pytest.mark.parametrize("reason", sorted(LOSSES))
def test_a_continuation_is_counted_by_method_and_by_what_was_lost(reason: str) -> None:
    metrics = Metrics()
    metrics.continued(ResumeMethod.REPLAY, reason, 0.25)
    assert counted(metrics, "shrk_continuations_total", method="replay", reason=reason) == 1


def test_whatever_a_node_calls_its_failure_is_one_label() -> None:
    metrics = Metrics()
    for code in ("", "mine", "mine_too"):
        metrics.continued(ResumeMethod.BY_IDS, code, 0.1)
    assert counted(metrics, "shrk_continuations_total", method="by_ids", reason="failed") == 3


def test_the_gap_that_a_caller_saw_is_kept_by_method() -> None:
    metrics = Metrics()
    metrics.continued(ResumeMethod.BY_IDS, "node_lost", 0.15)
    metrics.continued(ResumeMethod.REPLAY, "node_lost", 2.5)
    name = "shrk_continuation_gap_seconds"
    assert counted(metrics, f"{name}_sum", method="by_ids") == pytest.approx(0.15)
    assert counted(metrics, f"{name}_bucket", method="by_ids", le="0.2") == 1
    assert counted(metrics, f"{name}_bucket", method="by_ids", le="0.1") == 0
    assert counted(metrics, f"{name}_sum", method="replay") == pytest.approx(2.5)


def test_a_labelled_gauge_is_read_when_the_metrics_are_and_not_before() -> None:
    metrics = Metrics()
    nodes: dict[str, float] = {}

    def read() -> dict[str, float]:
        assert nodes, "read at its registration"
        return nodes

    metrics.gauges("shrk_nodes", "Nodes by state.", "state", read)
    nodes["online"] = 2
    assert b'shrk_nodes{state="online"} 2.0' in metrics.exposition()
    nodes["cooling"] = 1
    assert counted(metrics, "shrk_nodes", state="cooling") == 1


def test_each_tick_is_counted_by_how_late_it_came() -> None:
    metrics = Metrics()
    for lag in (0.0, 0.08, 0.3):
        metrics.ticked(lag)
    late = [counted(metrics, "shrk_loop_lag_seconds_bucket", le=le) for le in ("0.05", "0.1", "0.5")]
    assert late == [1, 2, 3]
