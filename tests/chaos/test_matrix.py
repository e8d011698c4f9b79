"""A sample of the matrix: every token position, every fault with every shape of answer, on a whole network."""

from __future__ import annotations

import pytest

from reliability import matrix

#: 260 runs on two busy cores; each has its own, far shorter deadline.
pytestmark = pytest.mark.timeout(1200)

#: The whole matrix is `make reliability`.
SEED = 1


async def test_nobody_notices_a_fault_at_any_position_in_any_kind_of_answer() -> None:
    print(f"seed {SEED}")
    runs = await matrix.run(matrix.sample(SEED), SEED, lambda done: None)
    assert len(runs) == 260
    failed = matrix.failed(runs, SEED)
    assert not failed, "\n".join(failed)
    seams = [run for run in runs if run.seam is not None]
    # Only a token that makes nothing visible may still be under way when it strikes.
    assert sum(run.seam == run.case.position for run in seams) > 0.9 * len(seams)
