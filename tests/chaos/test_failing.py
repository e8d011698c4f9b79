"""Nodes that answer errors, a few dozen requests long."""

from __future__ import annotations

import pytest

from reliability import failing

pytestmark = pytest.mark.timeout(300)

SEED = 1


async def test_nodes_that_all_fail_are_left_alone() -> None:
    # That they are found again takes as long as a breaker is open; `make reliability` waits for that.
    found = await failing.run_all(60, SEED, lambda done: None, until_back=False)
    assert found.attempts <= failing.ATTEMPTS_EACH_MAX * len(found.tolds)
    assert found.afterwards, "the breakers never opened: nothing was tried"
    assert {(told.status, told.code) for told in found.afterwards} == {(503, "no_node_available")}
    assert all(told.retry_after for told in found.afterwards)


async def test_nobody_sees_the_errors_of_one_node_among_three() -> None:
    found = await failing.run_one(60, SEED, lambda done: None)
    assert [told for told in found.tolds if not told.whole] == []
    assert found.at_failing_in_all > 0, "the node that fails was never asked: nothing was tried"
    assert found.at_failing == 0
