"""The sample of the reconciler's simulation that every change has to pass, and the proof that it finds something."""

from __future__ import annotations

import pytest

from simulation.replicas.planted import Bug
from support import seeds

#: As many as one change is worth; ten thousand are run where nobody waits for them.
SEEDS = 100
#: A planted bug is found within so many.
SEEDS_PLANTED = 1_000
PROGRAM = "simulation.replicas"


@pytest.mark.timeout(seeds.SECONDS_MAX)
def test_models_keep_their_replicas_in_a_hundred_clusters() -> None:
    code, total, said = seeds.run(PROGRAM, "--seeds", str(SEEDS))
    assert not total["violating"], said
    assert (code, total["seeds"]) == (0, SEEDS)
    # Where next to nothing happened, next to nothing was shown.
    assert total["causes"] > 10 * SEEDS
    assert total["changes"] > 5 * SEEDS
    assert total["announced"] > SEEDS / 10


def test_one_seed_is_one_run_whatever_the_process_hashes() -> None:
    seeds.assert_same_whatever_the_process_hashes(PROGRAM)


@pytest.mark.timeout(seeds.SECONDS_MAX)
@pytest.mark.parametrize("bug", list(Bug))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    seeds.assert_finds(PROGRAM, bug, SEEDS_PLANTED)
