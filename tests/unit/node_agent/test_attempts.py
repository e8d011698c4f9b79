"""Credit: what may be sent, and that nobody waits for more of it for ever."""

from __future__ import annotations

import asyncio

import pytest

from shrk_node_agent.attempts import Credit, CreditWithheld


async def test_credit_that_is_there_is_spent_at_once_even_with_no_patience() -> None:
    credit = Credit(10, seconds_max=0)
    await credit.spend(4)
    await credit.spend(6)


async def test_credit_that_never_comes_is_given_up() -> None:
    with pytest.raises(CreditWithheld):
        await Credit(10, seconds_max=0).spend(11)


async def test_credit_may_come_in_parts() -> None:
    credit = Credit(0)
    spending = asyncio.create_task(credit.spend(3))
    for _ in range(3):
        assert not spending.done()
        credit.give(1)
        await asyncio.sleep(0)
    await spending
