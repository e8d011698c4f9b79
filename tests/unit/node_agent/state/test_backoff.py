"""Backoff: how long to wait before the next try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.state.backoff import DIAL, STEADY_LINK_SECONDS, dial_failures


def test_the_first_dial_after_a_drop_is_immediate() -> None:
    assert DIAL.delay(1, 0.99) == 0.0


def test_a_link_that_lived_starts_the_count_anew_and_one_that_did_not_goes_on_with_it() -> None:
    assert dial_failures(7, STEADY_LINK_SECONDS) == 1
    assert dial_failures(7, STEADY_LINK_SECONDS - 0.1) == 8
    assert dial_failures(0, 0.0) == 1


@given(failures=st.integers(2, 10_000), fraction=st.floats(0, 1, exclude_max=True))
def test_later_dials_spread_over_the_whole_wait_and_never_exceed_the_bound(failures: int, fraction: float) -> None:
    ceiling = min(30.0, 0.5 * 2.0 ** min(failures - 2, 30))
    assert DIAL.delay(failures, fraction) == ceiling * fraction
