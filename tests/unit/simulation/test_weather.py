"""What runs are like: each kind of trouble comes to pass, and callers are numbered as they come."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from simulation.faults import Kind
from simulation.weather import AT_ONCE_SECONDS, Weather, draw

MODELS = ["m", "n"]


def weathers() -> list[Weather]:
    """A thousand runs, always the same."""
    rng = Random(5)
    return [draw(rng, 15.0, 4, MODELS) for _ in range(1_000)]


def test_every_fault_and_every_kind_of_trouble_comes_to_pass() -> None:
    runs = weathers()
    assert {fault.kind for run in runs for fault in run.faults} == set(Kind)
    assert sum(run.only_errors for run in runs) > 20
    assert sum(any(ask.deadly for _, ask in run.asks) for run in runs) > 50
    assert sum(len(run.asks) > 100 for run in runs) > 20


def test_callers_are_numbered_in_the_order_in_which_they_come() -> None:
    for run in weathers():
        assert [ask.number for _, ask in run.asks] == list(range(1, len(run.asks) + 1))
        assert all(earlier[0] <= later[0] for earlier, later in pairwise(run.asks))
        assert len({ask.request_id for _, ask in run.asks}) == len(run.asks)


def test_where_all_engines_answer_errors_nothing_else_is_wrong() -> None:
    for run in weathers():
        if run.only_errors:
            [fault] = run.faults
            assert (fault.kind, fault.at, fault.seconds) == (Kind.ALL_ERR, 0.0, 15.0)
            assert not any(ask.deadly for _, ask in run.asks)


def test_all_who_send_a_query_of_death_send_the_same() -> None:
    at_once = 0
    for run in weathers():
        deadly = [(at, ask) for at, ask in run.asks if ask.deadly]
        if deadly:
            assert len({ask.digest for _, ask in deadly}) == 1
            assert not any(ask.bad for _, ask in deadly)
            at_once += deadly[-1][0] - deadly[0][0] <= AT_ONCE_SECONDS
    assert at_once


def test_different_prompts_have_different_digests() -> None:
    digests = Counter(ask.digest for run in weathers()[:50] for _, ask in run.asks if not ask.deadly)
    assert max(digests.values()) == 1
