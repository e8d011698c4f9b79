"""The five experiments in their two sizes, as one thing to choose from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from reliability import cancel, load, matrix, simulation, vllm
from reliability.matrix import Case
from reliability.results import Row


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
    seeds = 10_000 if wish.full else 1_000
    found = await simulation.run(seeds, wish.seed)
    progress(found.seeds, seeds, simulation.failed(found))
    return Found(simulation.rows(found), simulation.failed(found))


EXPERIMENTS: Mapping[str, Experiment] = {
    "matrix": _matrix,
    "load": _load,
    "cancel": _cancel,
    "vllm": _vllm,
    "simulation": _simulation,
}
