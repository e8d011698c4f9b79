"""A small load over four nodes, one of which is always being lost."""

from __future__ import annotations

import pytest

from reliability import load
from reliability.load import Blow, Plan

pytestmark = pytest.mark.timeout(600)

SEED = 1


@pytest.mark.parametrize("plan", [Plan(Blow.KILL, 80), Plan(Blow.FREEZE, 64)], ids=lambda plan: str(plan.blow))
async def test_every_stream_is_whole_while_one_node_after_another_is_lost(plan: Plan) -> None:
    found = await load.run(plan, SEED, lambda done: None)
    failed = load.failed(found.streams, SEED)
    assert not failed, "\n".join(failed)
    assert len(found.streams) == plan.streams
    assert any(stream.struck for stream in found.streams), "no blow struck a stream: nothing was tried"
