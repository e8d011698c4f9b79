"""All experiments in their two sizes, as one thing to choose from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from reliability import (
    cancel,
    failing,
    load,
    matrix,
    overload,
    placing,
    poison,
    replicas,
    seeds,
    simulation,
    slow,
    storm,
    vllm,
)
from reliability.matrix import Case
from reliability.results import Row
from reliability.traffic import Told


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run."""

    seed: int
    full: bool
    #: Of the matrix only these; empty: all of its size.
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What an experiment has to say."""

    rows: tuple[Row, ...]
    failed: tuple[str, ...]


#: Tells how far it is: tries so far, tries in all, and what failed among them.
Progress = Callable[[int, int, Sequence[str]], None]
Experiment = Callable[[Wish, Progress], Awaitable[Found]]


async def _matrix(wish: Wish, progress: Progress) -> Found:
    cases: Sequence[Case] = wish.cases or (matrix.every_case() if wish.full else matrix.sample(wish.seed))

    def told(done: Sequence[matrix.Run]) -> None:
        progress(len(done), len(cases), matrix.failed(done, wish.seed))

    runs = await matrix.run(cases, wish.seed, told)
    return Found(matrix.rows(runs), matrix.failed(runs, wish.seed))


async def _load(wish: Wish, progress: Progress) -> Found:
    plans = (
        load.Plan(load.Blow.KILL, 800 if wish.full else 120),
        load.Plan(load.Blow.FREEZE, 1_000 if wish.full else 96),
    )
    rows: list[Row] = []
    failed: list[str] = []
    for plan in plans:

        def told(done: Sequence[load.Stream], plan: load.Plan = plan) -> None:
            progress(len(done), plan.streams, load.failed(done, wish.seed))

        found = await load.run(plan, wish.seed, told)
        rows += load.rows(found)
        failed += load.failed(found.streams, wish.seed)
    return Found(tuple(rows), tuple(failed))


async def _cancel(wish: Wish, progress: Progress) -> Found:
    count = 200 if wish.full else 20

    def told(done: Sequence[cancel.Left]) -> None:
        progress(len(done), count, cancel.failed(done, wish.seed))

    lefts = await cancel.run(count, wish.seed, told)
    return Found(cancel.rows(lefts), cancel.failed(lefts, wish.seed))


async def _vllm(wish: Wish, progress: Progress) -> Found:
    blows = vllm.plan(72, 12, wish.seed) if wish.full else vllm.plan(6, 1, wish.seed)

    def told(done: Sequence[vllm.Struck]) -> None:
        progress(len(done), len(blows), vllm.failed(done, wish.seed))

    strikes = await vllm.run(blows, wish.seed, told)
    return Found(vllm.rows(strikes), vllm.failed(strikes, wish.seed))


async def _simulation(wish: Wish, progress: Progress) -> Found:
    found, failed = await _of_seeds(simulation.PROGRAM, 10_000 if wish.full else 1_000, wish, progress)
    return Found(simulation.rows(found), failed)


async def _replicas(wish: Wish, progress: Progress) -> Found:
    found, failed = await _of_seeds(replicas.PROGRAM, 10_000 if wish.full else 300, wish, progress)
    return Found(replicas.rows(found), failed)


async def _of_seeds(
    program: seeds.Program, count: int, wish: Wish, progress: Progress
) -> tuple[seeds.Simulated, tuple[str, ...]]:
    found = await seeds.run(program, count, wish.seed)
    failed = seeds.failed(program, found)
    progress(found.seeds, count, failed)
    return found, failed


async def _failing(wish: Wish, progress: Progress) -> Found:
    of_all, of_one = (500, 800) if wish.full else (60, 60)
    everyone = await failing.run_all(of_all, wish.seed, _counted(of_all, progress))
    one = await failing.run_one(of_one, wish.seed, _counted(of_one, progress))
    return Found(failing.rows(everyone, one), failing.failed(everyone, one, wish.seed))


async def _slow(wish: Wish, progress: Progress) -> Found:
    plan = slow.Plan(requests=600, moves=20) if wish.full else slow.Plan(requests=60, moves=2)
    found = await slow.run(plan, wish.seed, _counted(slow.count(plan), progress))
    return Found(slow.rows(found), slow.failed(found, wish.seed))


async def _overload(wish: Wish, progress: Progress) -> Found:
    plan = overload.Plan(15.0, 60.0) if wish.full else overload.Plan(3.0, 3.0)
    # How many come is known only once the peak is.
    found = await overload.run(plan, wish.seed, lambda done, of: progress(len(done), of, ()))
    return Found(overload.rows(found), overload.failed(found, wish.seed))


async def _poison(wish: Wish, progress: Progress) -> Found:
    sends = 100 if wish.full else 20
    found = await poison.run(sends, wish.seed, _counted(sends, progress))
    return Found(poison.rows(found), poison.failed(found, wish.seed))


async def _storm(wish: Wish, progress: Progress) -> Found:
    plan = storm.Plan(agents=2_000, kills=3) if wish.full else storm.Plan(agents=100, kills=1)
    found = await storm.run(plan, lambda done: progress(done, plan.kills, ()))
    return Found(storm.rows(found), storm.failed(found))


async def _placing(wish: Wish, progress: Progress) -> Found:
    of = len(placing.Case) * len(placing.SIZES)
    costs = await placing.run(12 if wish.full else 2, wish.seed, lambda done: progress(done, of, ()))
    return Found(placing.rows(costs), placing.failed(costs, wish.seed))


def _counted(of: int, progress: Progress) -> Callable[[Sequence[Told]], None]:
    """Tells how many have been told; what failed is known only when all have been."""
    return lambda done: progress(len(done), of, ())


EXPERIMENTS: Mapping[str, Experiment] = {
    "matrix": _matrix,
    "load": _load,
    "cancel": _cancel,
    "failing": _failing,
    "slow": _slow,
    "overload": _overload,
    "poison": _poison,
    "vllm": _vllm,
    "simulation": _simulation,
    "replicas": _replicas,
    "storm": _storm,
    "placing": _placing,
}
