"""Ten times as many callers as there is room for, for a few seconds."""

from __future__ import annotations

import pytest

from reliability import overload
from reliability.overload import Plan

pytestmark = pytest.mark.timeout(300)

SEED = 1
#: The last of them comes 5.75 s after the overload, when by the promise all is as before.
LOOKS = 24


async def test_an_overload_leaves_nobody_without_an_answer_or_a_word() -> None:
    found = await overload.run(Plan(3.0, 3.0, looks=LOOKS), SEED, lambda done, of: None)
    assert overload.failed(found, SEED) == ()
    assert any(told.refused for told in found.tolds), "there was room for all: nothing was tried"
    assert all(told.retry_after for told in found.tolds if told.refused)
    assert any(told.whole for told in found.tolds)
    assert found.after[-1].whole
