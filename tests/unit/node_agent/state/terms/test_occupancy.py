"""Owner first: who counts as somebody else on a GPU, how soon we are gone, and when we come back."""

from __future__ import annotations

import random

import pytest

from shrk_node_agent.state.devices import GpuProcess, GpuReading
from shrk_node_agent.state.terms.occupancy import (
    BACK_SECONDS,
    BUSY_SECONDS,
    DRAIN_SECONDS_MAX,
    GONE_SECONDS,
    Ours,
    Owner,
    When,
)

GB = 10**9
OURS = Ours(pids=(10, 11), memory_bytes=18 * GB)


def read(
    *processes: tuple[int, int | None], utilisation: float | None = 0.0, free: int | None = 4 * GB, told: bool = True
) -> GpuReading:
    listed = tuple(GpuProcess(pid, memory) for pid, memory in processes) if told else None
    return GpuReading("a", 1, "a card", 24 * GB, free, utilisation=utilisation, processes=listed)


@pytest.fixture
def owner() -> Owner:
    return Owner("a", 1)


def test_our_own_engines_are_nobody_else(owner: Owner) -> None:
    assert owner.reading(0.0, read((10, 17 * GB), (11, GB)), OURS).admits


def test_what_a_desktop_holds_is_nobody(owner: Owner) -> None:
    assert owner.reading(0.0, read((10, 17 * GB), (99, 300 * 1024 * 1024)), OURS).admits


def test_another_program_shuts_at_once_and_has_the_gpu_within_five_seconds(owner: Owner) -> None:
    theirs = owner.reading(7.0, read((10, 17 * GB), (99, 3 * GB)), OURS)
    assert (theirs.admits, theirs.drain_by) == (False, 7.0 + DRAIN_SECONDS_MAX)
    assert theirs.reason == "another program (process 99) holds 3.0 GB of it"
    # It stays by the time at which it was first seen.
    assert owner.reading(9.0, read((99, 3 * GB), (98, 5 * GB)), OURS).drain_by == 7.0 + DRAIN_SECONDS_MAX
    assert "process 98 and 1 more" in owner.tick(9.0).reason


def test_an_owner_is_told_how_to_find_the_program_and_what_to_do_about_one_that_stays(owner: Owner) -> None:
    stays = "What stays, as a desktop or a browser does: close it, or leave this GPU out of `visible_devices`."
    told = owner.reading(0.0, read((99, 3 * GB)), OURS).next_action
    assert told == f"It takes work again 60 s after that has ended (which it is: ps -p 99). {stays}"
    untold = owner.reading(1.0, read(told=False, free=1 * GB), OURS).next_action
    assert untold == f"It takes work again 60 s after that has ended. {stays}"
    assert owner.tick(2.0).next_action == "Nothing: it takes work again in 59 s."


def test_what_a_program_holds_counts_in_both_modes(owner: Owner) -> None:
    idle = Owner("a", 1, When.IDLE)
    assert [one.reading(0.0, read((99, 3 * GB)), OURS).admits for one in (owner, idle)] == [False, False]


def test_it_comes_back_after_a_minute_without(owner: Owner) -> None:
    owner.reading(0.0, read((99, 3 * GB)), OURS)
    assert "10 s ago" in owner.reading(10.0, read(), OURS).reason
    assert "takes work again in 50 s" in owner.tick(10.0).next_action
    owner.reading(20.0, read((99, 3 * GB)), OURS)
    assert not owner.reading(20.0 + BACK_SECONDS - 1, read(), OURS).admits
    assert owner.reading(20.0 + BACK_SECONDS, read(), OURS).admits
    assert owner.reading(100.0, read((99, 3 * GB)), OURS).drain_by == 100.0 + DRAIN_SECONDS_MAX


def test_an_engine_of_ours_that_has_just_ended_is_not_a_stranger(owner: Owner) -> None:
    owner.reading(0.0, read((10, 17 * GB)), OURS)
    assert owner.reading(1.0, read((10, 17 * GB)), Ours()).admits
    assert not owner.reading(GONE_SECONDS, read((10, 17 * GB)), Ours()).admits


def test_work_that_we_did_not_give_is_anothers_when_it_lasts(owner: Owner) -> None:
    busy = read((10, 17 * GB), (99, 100), utilisation=0.9)
    assert owner.reading(0.0, busy, OURS).admits
    theirs = owner.reading(BUSY_SECONDS, busy, OURS)
    assert (theirs.admits, theirs.reason) == (False, "another program keeps it busy (90%)")


@pytest.mark.parametrize(
    ("reading", "ours"),
    [
        (read((10, GB), (99, 100), utilisation=0.9), Ours((10,), working=True)),
        (read((10, GB), utilisation=0.9), Ours((10,))),
        (read((99, 100), utilisation=0.3), Ours((10,))),
        (read((99, 100), utilisation=None), Ours((10,))),
    ],
    ids=["we work", "nobody else is there", "a window is moved", "not told"],
)
def test_work_that_may_be_ours_is_nobody_elses(owner: Owner, reading: GpuReading, ours: Ours) -> None:
    assert all(owner.reading(float(now), reading, ours).admits for now in range(20))


def test_in_the_mode_idle_little_work_of_others_is_enough() -> None:
    idle, always = Owner("a", 1, When.IDLE), Owner("a", 1)
    reading = read((99, 100), utilisation=0.2)
    for now in range(5):
        idle.reading(float(now), reading, Ours())
        always.reading(float(now), reading, Ours())
    assert (idle.tick(5.0).admits, always.tick(5.0).admits) == (False, True)


@pytest.mark.parametrize(
    ("reading", "ours"),
    [
        (read(told=False, free=1 * GB), OURS),
        (read((10, None), (99, None), free=1 * GB), OURS),
        (read((510, 17 * GB), (599, 5 * GB), free=1 * GB), Ours(None, 18 * GB)),
    ],
    ids=["no processes told", "no memory told", "other numbers than here"],
)
def test_where_processes_are_not_told_memory_that_is_not_ours_counts(
    owner: Owner, reading: GpuReading, ours: Ours
) -> None:
    theirs = owner.reading(0.0, reading, ours)
    assert not theirs.admits
    assert theirs.reason == "5.0 GB of it are taken and not by us (its driver does not tell by whom)"


def test_where_processes_are_not_told_what_a_driver_keeps_is_nobody(owner: Owner) -> None:
    assert owner.reading(0.0, read(told=False, free=5 * GB), OURS).admits
    assert owner.reading(0.0, read(told=False, free=None), OURS).admits


def test_a_lost_gpu_tells_nothing_of_others(owner: Owner) -> None:
    lost = GpuReading("a", 1, "a card", processes=(GpuProcess(99, 3 * GB),), lost=True)
    assert owner.reading(0.0, lost, OURS).admits


def test_as_one_who_keeps_a_list_of_every_moment() -> None:
    seed = 20_261_130
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(50):
        owner, seen = Owner("a", 1), list[float]()
        now = 0.0
        for _ in range(200):
            now += dice.choice((0.5, 1.0, 20.0, 61.0))
            if strange := dice.random() < 0.1:
                seen.append(now)
            theirs = owner.reading(now, read((99, 3 * GB)) if strange else read(), Ours())
            assert theirs.theirs is any(now - at < BACK_SECONDS for at in seen)
