"""What is made of the simulations' own accounts."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from reliability import replicas, simulation
from reliability.seeds import Simulated, failed
from simulation.planted import Bug
from simulation.replicas.planted import Bug as ReplicasBug

CLUSTER = Simulated(
    first=1,
    seeds=1_000,
    violating=(),
    figures={"requests": 30_000, "errors": 40, "continuations": 2_000, "by_ids": 1_500, "faults": 4_000},
    found_after=(("one", 1), ("another", 17)),
)
RECONCILER = replace(
    CLUSTER,
    figures={"nodes": 12_000, "causes": 40_000, "announced": 200, "changes": 80, "node_hours": 100.0}
    | {"changes_per_hour_max": 9},
)
BOTH = pytest.mark.parametrize(("experiment", "sound"), [(simulation, CLUSTER), (replicas, RECONCILER)])


@BOTH
def test_each_seed_is_a_try_and_each_violating_seed_a_failure(experiment: ModuleType, sound: Simulated) -> None:
    laws, _ = experiment.rows(replace(sound, violating=(7, 9)))
    assert (laws.n, laws.failures) == (1_000, 2)
    assert "seeds 1 to 1000" in laws.seen
    [what] = failed(experiment.PROGRAM, replace(sound, violating=(7,)))
    assert what == f"a law was broken  [python -m {experiment.PROGRAM.module} --seed 7]"


@BOTH
def test_a_planted_bug_that_is_not_found_is_a_failure(experiment: ModuleType, sound: Simulated) -> None:
    blind = replace(sound, found_after=(("one", 1), ("another", None)))
    assert [row.failures for row in experiment.rows(sound)] == [0, 0]
    assert experiment.rows(blind)[1].failures == 1
    assert "another" in failed(experiment.PROGRAM, blind)[0]


def test_the_bugs_that_are_hunted_are_those_that_can_be_planted() -> None:
    assert set(simulation.PROGRAM.planted) <= set(Bug)
    assert set(replicas.PROGRAM.planted) == set(ReplicasBug)
