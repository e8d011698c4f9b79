"""What is made of the simulated cluster's own account."""

from __future__ import annotations

from dataclasses import replace

from reliability.simulation import Simulated, failed, rows

SOUND = Simulated(
    first=1,
    seeds=1_000,
    requests=30_000,
    errors=40,
    continuations=2_000,
    by_ids=1_500,
    faults=4_000,
    violating=(),
    found_after=(("finish-twice", 1), ("stale-frame-accepted", 17)),
)


def test_each_seed_is_a_try_and_each_violating_seed_a_failure() -> None:
    laws, _ = rows(replace(SOUND, violating=(7, 9)))
    assert (laws.n, laws.failures) == (1_000, 2)
    assert failed(replace(SOUND, violating=(7,))) == ("a law was broken  [python -m simulation --seed 7]",)


def test_a_planted_bug_that_is_not_found_is_a_failure() -> None:
    blind = replace(SOUND, found_after=(("finish-twice", 1), ("stale-frame-accepted", None)))
    assert [row.failures for row in rows(SOUND)] == [0, 0]
    assert rows(blind)[1].failures == 1
    assert "stale-frame-accepted" in failed(blind)[0]
