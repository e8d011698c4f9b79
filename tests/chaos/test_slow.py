"""A node that becomes slow, for a few seconds."""

from __future__ import annotations

import pytest

from reliability import slow

pytestmark = pytest.mark.timeout(300)

SEED = 1


async def test_answers_stay_whole_and_second_tries_few_while_a_node_is_slow() -> None:
    found = await slow.run(slow.Plan(requests=60, moves=2), SEED, lambda done: None)
    failed = slow.failed(found, SEED)
    assert [line for line in failed if line.startswith("stream")] == []
    assert found.at_slow < found.attempts / 3, "the slow node draws as much as a healthy one"
    assert 0 < found.hedges <= slow.HEDGES_MAX * found.requests + slow.HEDGES_FIRST
    assert found.losers, "nothing was outrun: nothing was tried"
    assert None not in found.losers
