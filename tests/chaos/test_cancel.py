"""Callers that leave, and engines that stop."""

from __future__ import annotations

import pytest

from reliability import cancel

pytestmark = pytest.mark.timeout(300)


async def test_the_engine_stops_whenever_a_caller_leaves_streamed_or_not() -> None:
    lefts = await cancel.run(20, 1, lambda done: None)
    assert len(lefts) == 20
    assert {left.streamed for left in lefts} == {True, False}
    assert [left for left in lefts if left.idle_seconds is None] == []
