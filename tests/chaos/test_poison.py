"""A query of death, sent again and again."""

from __future__ import annotations

import pytest

from reliability import poison

pytestmark = pytest.mark.timeout(300)

SEED = 1


async def test_a_query_of_death_costs_two_engines_and_nobody_else_an_answer() -> None:
    found = await poison.run(20, SEED, lambda done: None)
    failed = poison.failed(found, SEED)
    assert not failed, "\n".join(failed)
    assert len(found.ends) == 2, found.ends
    assert found.others, "nobody else asked: nothing was tried"
