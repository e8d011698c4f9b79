"""A sample of the owner's terms under simulation: heat on many cards, hours against every minute."""

from __future__ import annotations

import pytest

from simulation.terms.planted import Bug
from support import seeds

#: Ten thousand of both are run where nobody waits for them.
HOURS, SCHEDULES = 200, 500
#: A planted bug is found within so many.
SEEDS_PLANTED = 200
PROGRAM = "simulation.terms"


@pytest.mark.timeout(seeds.SECONDS_MAX)
def test_heat_is_held_for_two_hundred_hours() -> None:
    code, total, said = seeds.run(PROGRAM, "--hours", str(HOURS))
    assert not total["violating"], said
    assert (code, total["hours"]) == (0, HOURS)
    assert total["admitted_unforeseen"] == 0
    assert total["above_seconds_max"] <= 5
    assert total["above_working_seconds_max"] <= 5
    assert total["flips_an_hour_max"] <= 6
    # Where nothing was admitted and nothing got hot, nothing was shown.
    assert total["admitted"] > 50 * HOURS
    assert total["admitting_hours"] > HOURS / 2
    assert {"NONE", "TARGET_TEMPERATURE", "POWER_LIMIT", "FEWER_SLOTS", "DRAIN", "STOP"} <= set(total["rungs"])
    assert total["owner_changes"] > 10


@pytest.mark.timeout(seeds.SECONDS_MAX)
def test_five_hundred_schedules_are_as_one_says_who_looks_at_every_minute() -> None:
    code, total, said = seeds.run(PROGRAM, "--schedules", "--seeds", str(SCHEDULES))
    assert not total["violating"], said
    assert (code, total["seeds"]) == (0, SCHEDULES)
    assert SCHEDULES / 10 < total["open"] < SCHEDULES


def test_one_seed_is_one_run_whatever_the_process_hashes() -> None:
    seeds.assert_same_whatever_the_process_hashes(PROGRAM)


@pytest.mark.timeout(seeds.SECONDS_MAX)
@pytest.mark.parametrize("bug", list(Bug))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    seeds.assert_finds(PROGRAM, bug, SEEDS_PLANTED)
