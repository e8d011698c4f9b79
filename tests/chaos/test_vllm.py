"""Real vLLM is struck six times in the middle of its answers, once for good."""

from __future__ import annotations

import pytest

from reliability import vllm

#: Three engines load at once, and one of them a second time.
pytestmark = pytest.mark.timeout(1200)

SEED = 1


async def test_nobody_sees_real_vllm_die_in_the_middle_of_an_answer() -> None:
    strikes = await vllm.run(vllm.plan(6, 1, SEED), SEED, lambda done: None)
    assert len(strikes) == 6
    failed = vllm.failed(strikes, SEED)
    assert not failed, "\n".join(failed)
