"""The sample of the simulation that every change has to pass, and the proof that it would find something."""

from __future__ import annotations

import pytest

from simulation.cluster import Course, Violation, simulate
from simulation.planted import Bug
from support import seeds

#: As many as one change is worth; ten times as many are run where nobody waits for them.
SEEDS = 1_000
PROGRAM = "simulation"


@pytest.mark.timeout(seeds.SECONDS_MAX)
def test_a_thousand_networks_under_faults_break_no_law() -> None:
    code, total, said = seeds.run(PROGRAM, "--seeds", str(SEEDS))
    assert not total["violating"], said
    assert (code, total["seeds"]) == (0, SEEDS)
    # Where next to nothing happened, next to nothing was shown.
    assert total["requests"] > 20 * SEEDS
    assert total["continuations"] > SEEDS
    assert 0 < total["by_ids"] < total["continuations"]
    assert SEEDS / 20 < total["hedges"] < total["requests"] / 20 + SEEDS


def test_one_seed_is_one_run_whatever_the_process_hashes() -> None:
    seeds.assert_same_whatever_the_process_hashes(PROGRAM)


def test_a_seed_runs_the_same_after_others_in_one_process() -> None:
    course = Course(digest=True)
    alone = simulate(5, course)
    simulate(6)
    assert simulate(5, course) == alone


@pytest.mark.timeout(seeds.SECONDS_MAX)
@pytest.mark.parametrize("bug", list(Bug))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    seeds.assert_finds(PROGRAM, bug, SEEDS, "--minutes", "0.25")


def first_violation(course: Course) -> str:
    """What is said of the first seed that violates something."""
    for seed in range(1, SEEDS):
        try:
            simulate(seed, course)
        except Violation as violation:
            return str(violation)
    raise AssertionError("no seed violates anything")


def test_a_violation_shows_what_led_to_it_and_is_the_same_each_time() -> None:
    course = Course(bug=Bug.LOSER_NEVER_RELEASED)
    told = first_violation(course)
    assert len(told.splitlines()) > 20
    assert first_violation(course) == told
