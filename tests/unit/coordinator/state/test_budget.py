"""What may be spent on second tries."""

from __future__ import annotations

import random

from shrk_coordinator.state.budget import HEDGE_SHARE, RETRIES_MIN, RETRY_SHARE, SAVED_MAX, Budget


def test_a_few_at_the_same_time_need_no_savings() -> None:
    budget = Budget(RETRY_SHARE, RETRIES_MIN)
    assert [budget.spend() for _ in range(RETRIES_MIN + 1)] == [True] * RETRIES_MIN + [False]
    budget.done()
    assert budget.spend()


def test_what_is_spent_stays_within_the_share_of_what_came() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, budget = random.Random(seed), Budget(HEDGE_SHARE)
    requests = spent = 0
    for _ in range(5_000):
        if dice.random() < 0.5:
            budget.request()
            requests += 1
        else:
            spent += budget.spend()
        assert spent <= HEDGE_SHARE * requests + 1e-6
    assert spent > 0


def test_what_a_quiet_hour_saves_up_is_bounded() -> None:
    budget = Budget(RETRY_SHARE)
    for _ in range(10_000):
        budget.request()
    assert sum(budget.spend() for _ in range(1_000)) == SAVED_MAX
