"""The sample of the reconciler's simulation that every change has to pass, and the proof that it finds something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from simulation.replicas.planted import Bug
from support.house import ROOT

#: As many as one change is worth; ten thousand are run where nobody waits for them.
SEEDS = 100
#: A planted bug is found within so many.
SEEDS_PLANTED = 1_000
#: Of a machine that does much else besides.
SECONDS_MAX = 600


def run(*arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """The command as people run it: exit code, figures, and what it said beside them."""
    ran = subprocess.run(
        [sys.executable, "-m", "simulation.replicas", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


@pytest.mark.timeout(SECONDS_MAX)
def test_models_keep_their_replicas_in_three_hundred_clusters() -> None:
    code, total, said = run("--seeds", str(SEEDS))
    assert not total["violating"], said
    assert (code, total["seeds"]) == (0, SEEDS)
    # Where next to nothing happened, next to nothing was shown.
    assert total["causes"] > 10 * SEEDS
    assert total["changes"] > 5 * SEEDS
    assert total["announced"] > SEEDS / 10


def test_one_seed_is_one_run_whatever_the_process_hashes() -> None:
    first, second = (run("--seed", "11", PYTHONHASHSEED=seed)[1] for seed in ("1", "2"))
    assert first["digest"]
    assert first == second


@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize("bug", list(Bug))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    code, total, said = run("--seeds", str(SEEDS_PLANTED), "--plant", bug, "--first", "--jobs", "1")
    assert code == 1
    [seed] = total["violating"]
    assert f"seed {seed}, at " in said
    assert f"python -m simulation.replicas --seed {seed} --plant {bug} --trace" in said
