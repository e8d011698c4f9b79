"""Loads that failed: each is counted once, and each makes the wait longer."""

from __future__ import annotations

from shrk_coordinator.state.replicas.failures import RETRY_SECONDS, RETRY_SECONDS_MAX, Failures


def test_waits_double_up_to_an_hour() -> None:
    failures, now, waits = Failures(), 1_000.0, []
    for _ in range(9):
        failures.happened(now)
        waits.append(failures.until - now)
        now = failures.until
    assert waits[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert waits[-1] == RETRY_SECONDS_MAX


def test_a_failure_that_is_told_again_is_the_same_failure() -> None:
    failures = Failures()
    assert failures.told(1_000.0, 990.0, 0.0)
    assert not failures.told(1_005.0, 990.0, 0.0)
    assert failures.count == 1


def test_a_node_that_waits_longer_itself_is_left_alone_as_long_but_not_for_ever() -> None:
    failures = Failures()
    failures.told(1_000.0, 990.0, 1_500.0)
    assert failures.until == 1_500.0
    failures.told(1_600.0, 1_590.0, 1e9)
    assert failures.until == 1_600.0 + RETRY_SECONDS_MAX


def test_a_failure_long_after_the_last_is_a_first_one() -> None:
    failures = Failures()
    for now in (1_000.0, 1_100.0, 1_300.0):
        failures.happened(now)
    failures.happened(20_000.0)
    assert failures.count == 1
