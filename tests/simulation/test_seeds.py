"""The sample of the simulation that every change has to pass, and the proof that it would find something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from simulation.cluster import Course, Violation, simulate
from simulation.planted import Bug
from support.house import ROOT

#: As many as one change is worth; ten times as many are run where nobody waits for them.
SEEDS = 1_000
#: Of a machine that does much else besides.
SECONDS_MAX = 900


def run(*arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """The command as people run it: exit code, figures, and what it said beside them."""
    ran = subprocess.run(
        [sys.executable, "-m", "simulation", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


@pytest.mark.timeout(SECONDS_MAX)
def test_a_thousand_networks_under_faults_break_no_law() -> None:
    code, total, said = run("--seeds", str(SEEDS))
    assert not total["violating"], said
    assert (code, total["seeds"]) == (0, SEEDS)
    # Where next to nothing happened, next to nothing was shown.
    assert total["requests"] > 20 * SEEDS
    assert total["continuations"] > SEEDS
    assert 0 < total["by_ids"] < total["continuations"]
    assert SEEDS / 20 < total["hedges"] < total["requests"] / 20 + SEEDS


def test_one_seed_is_one_run_whatever_the_process_hashes() -> None:
    first, second = (run("--seed", "11", PYTHONHASHSEED=seed)[1] for seed in ("1", "2"))
    assert first["digest"]
    assert first == second


def test_a_seed_runs_the_same_after_others_in_one_process() -> None:
    course = Course(digest=True)
    alone = simulate(5, course)
    simulate(6)
    assert simulate(5, course) == alone


@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize("bug", list(Bug))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    code, total, said = run("--seeds", str(SEEDS), "--plant", bug, "--first", "--jobs", "1")
    assert code == 1
    [seed] = total["violating"]
    assert f"seed {seed}, at " in said
    assert f"python -m simulation --seed {seed} --minutes 0.25 --plant {bug} --trace" in said


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
