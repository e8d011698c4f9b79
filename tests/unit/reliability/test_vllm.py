"""The order of faults against real vLLM, and what is made of them."""

from __future__ import annotations

import itertools
from collections import Counter

from reliability.vllm import Blow, Struck, plan, rows


def test_kills_of_all_kinds_are_spread_over_the_run_and_the_rest_are_equally_many() -> None:
    blows = plan(72, 12, seed=1)
    counts = Counter(blows)
    assert len(blows) == 72
    assert {counts[blow] for blow in Blow if blow.kills} == {4}
    assert {counts[blow] for blow in Blow if not blow.kills} == {20}
    kills = [at for at, blow in enumerate(blows) if blow.kills]
    assert all(after - before > 1 for before, after in itertools.pairwise(kills))


def test_a_small_plan_has_its_one_kill() -> None:
    assert sum(blow.kills for blow in plan(6, 1, seed=1)) == 1


def test_an_answer_that_goes_on_otherwise_is_no_broken_stream_but_breaks_the_promise_of_equal_texts() -> None:
    equal = Struck(Blow.RESET_LINK, "text", 3, seam=3, way="by_ids", gap_seconds=0.1)
    other = Struck(Blow.STOP_ENGINE, "text", 4, differs="text: …", seam=5, way="by_ids", gap_seconds=0.2)
    broken = Struck(Blow.KILL_API, "json", 2, defect="an error event")
    losses, hangs, rate = rows([equal, other, broken])
    assert (losses.n, losses.failures, losses.hard) == (2, 1, True)
    assert (hangs.n, hangs.failures, hangs.hard) == (1, 0, True)
    assert (rate.n, rate.failures, rate.hard) == (2, 1, True)
    assert "seams at 1 positions" in losses.seen
    assert rate.seen == "identity rate at temperature 0: 50.0 %"
