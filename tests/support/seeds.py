"""Runs a simulation's command as people run it, and what every simulation has to show of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from support.house import ROOT

#: Of a machine that does much else besides.
SECONDS_MAX = 900


def run(program: str, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """`python -m PROGRAM`: exit code, figures, and what it said beside them."""
    ran = subprocess.run(
        [sys.executable, "-m", program, "--json", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def assert_same_whatever_the_process_hashes(program: str) -> None:
    """One seed is one run."""
    first, second = (run(program, "--seed", "11", PYTHONHASHSEED=seed)[1] for seed in ("1", "2"))
    assert first["digest"]
    assert first == second


def assert_finds(program: str, bug: str, seeds: int, *told: str) -> None:
    """A planted bug is found within so many seeds, with the command that replays it; `told` are options of that."""
    code, total, said = run(program, "--seeds", str(seeds), "--plant", bug, "--first", "--jobs", "1")
    assert code == 1
    [seed] = total["violating"]
    assert f"seed {seed}, at " in said
    assert " ".join(("python -m", program, "--seed", str(seed), *told, "--plant", bug, "--trace")) in said
