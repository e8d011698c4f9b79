"""One run: a network drawn from a seed, callers and faults for some minutes, then peace: what is left of it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import structlog

from simulation import asks, weather
from simulation.asks import Ask, Kind
from simulation.caller import Caller
from simulation.clock import BEGINNING, Clock
from simulation.coordinator import Coordinator
from simulation.engine import EngineKind
from simulation.faults import Faults
from simulation.laws import Laws
from simulation.planted import Bug, parts_with
from simulation.reader import Ending, Reader
from simulation.site import Site
from simulation.trace import Trace
from simulation.wire import Line
from simulation.world import World

#: The first callers come when the slowest engine has loaded its model.
START_SECONDS = 2.5
#: After the last fault has ended, nothing needs longer than this: an engine's backoff of a minute, a link's refusal of
#: a minute and a half, a stuck caller's minute, and the 300 s of a first token come one after another at the worst.
PEACE_SECONDS_MAX = 600.0
#: Whoever comes when all is well is asked of a node, and its answer passed on, within this and the engine's own time.
SERVED_SECONDS_MAX = 1.0
#: How often it is asked whether all is over.
_LOOK_SECONDS = 0.5


class Violation(AssertionError):
    """Something that must hold did not: with its seed, its moment, what led to it, and the command that replays it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

    seed: int
    requests: int
    finished: int
    errors: int
    left: int
    attempts: int
    hedges: int
    continuations: int
    by_ids: int
    faults: int
    #: Of all events; where it was asked for.
    digest: str


@dataclass(frozen=True, slots=True)
class Course:
    """What to run, beside the seed."""

    minutes: float = 0.25
    bug: Bug | None = None
    digest: bool = False
    show: bool = False

    def command(self, seed: int) -> str:
        """The command that runs it."""
        planted = f" --plant {self.bug}" if self.bug else ""
        return f"python -m simulation --seed {seed} --minutes {self.minutes:g}{planted} --trace"


def simulate(seed: int, course: Course = Course()) -> Outcome:
    """Run one seed to its end. Raises Violation."""
    clock = Clock()
    world = World(clock, Random(seed), Trace(clock, digest=course.digest, show=course.show))
    with _only_errors_logged():
        try:
            return _Run(seed, course, world).to_its_end()
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise Violation(
                f"seed {seed}, at {clock.now - BEGINNING:.6f} s: {what}\n{world.trace.last()}\n"
                f"Replay it: {course.command(seed)}"
            ) from error


class _Run:
    """One seed's network."""

    def __init__(self, seed: int, course: Course, world: World) -> None:
        self._seed = seed
        self._world = world
        self._parts = parts_with(course.bug)
        self._seconds = course.minutes * 60.0
        self._coordinator = Coordinator(world, self._parts.state(Random(seed)), self._parts.links(b"boot", ()))
        rng = world.rng
        models = [f"model-{i}" for i in range(rng.choice((1, 1, 2, 3)))]
        self._sites = [self._site(f"n{i + 1}", models) for i in range(rng.randint(3, 8))]
        by_id = {site.node_id: site for site in self._sites}
        hardware = {kind.pin: kind.hardware for site in self._sites for kind in site.kinds}
        self._laws = Laws(self._coordinator, by_id, hardware)
        self._coordinator.driver.watch = self._laws.handled
        self._coordinator.ticked = self._laws.ticked
        self._faults = Faults(world, self._coordinator, self._sites)
        self._models = sorted({kind.model for site in self._sites for kind in site.kinds})
        self._weather = weather.draw(rng, self._seconds, len(self._sites), self._models)

    def _site(self, node_id: str, models: list[str]) -> Site:
        rng = self._world.rng
        line = Line(0.001 + 0.04 * rng.random(), 0.02 * rng.random(), rng.choice((4e6, 2e7, 1e8)))
        served = rng.sample(models, min(len(models), rng.choice((1, 1, 2))))
        kinds = [_engine_kind(rng, f"e{i}", model) for i, model in enumerate(served)]
        return Site(self._world, node_id, line, kinds, self._coordinator)

    def to_its_end(self) -> Outcome:
        """Let it happen."""
        clock = self._world.clock
        for at, ask in self._weather.asks:
            clock.at(BEGINNING + START_SECONDS + at, partial(self._coordinator.run, partial(self._begin, ask)))
        for fault in self._weather.faults:
            clock.at(BEGINNING + START_SECONDS + fault.at, partial(self._faults.begin, fault))
        for site in self._sites:
            site.power_on()
        self._coordinator.start()
        clock.run(BEGINNING + START_SECONDS + self._seconds)
        if self._weather.only_errors:
            self._laws.budgets.only_errors(self._coordinator.counts.attempts, len(self._models))
        self._world.trace.add("fault", "all faults end")
        self._faults.heal()
        self._quiesce()
        self._ask_again()
        self._quiesce()
        self._laws.ended()
        return self._outcome()

    def _quiesce(self) -> None:
        clock = self._world.clock
        until = clock.now + PEACE_SECONDS_MAX
        while clock.now < until and not (self._laws.idle() and self._laws.well()):
            clock.run(clock.now + _LOOK_SECONDS)

    def _ask_again(self) -> None:
        """All is well and nothing under way: whoever comes now is served at once, and needs nobody else's patience."""
        clock, rng = self._world.clock, self._world.rng
        clock.run(
            clock.now + max(self._laws.chances.shut_for(model, clock.now) for model in self._models) + _LOOK_SECONDS
        )
        number = len(self._laws.stories)
        for model in self._models:
            number += 1
            ask = asks.draw(rng, number, [model])
            plain = replace(
                ask, kind=Kind.STREAMED, tokens_max=2, padding=0, bad=False, leaves_after=None, patience=None
            )
            began = partial(self._begin, plain)
            self._coordinator.run(began)
        kinds = [kind for site in self._sites for kind in site.kinds]
        clock.run(clock.now + SERVED_SECONDS_MAX + max(kind.first_token_seconds for kind in kinds))
        self._laws.all_served(number - len(self._models))

    def _begin(self, ask: Ask) -> None:
        self._world.trace.add("caller", "asks", ask)
        self._laws.asked(ask)
        reader = Reader(ask, self._laws.hardware_of)
        ended = partial(self._ended, ask, reader)
        Caller(self._coordinator, ask, reader, self._parts, self._laws.accepted, ended).begin()

    def _ended(self, ask: Ask, reader: Reader, ending: Ending, error: str) -> None:
        self._world.trace.add("caller", "ended", (ask.number, ending, error))
        self._laws.answered(ask, ending, error, reader.usage_told)

    def _outcome(self) -> Outcome:
        endings = [story.ending for story in self._laws.stories.values()]
        counts = self._coordinator.counts
        return Outcome(
            seed=self._seed,
            requests=len(endings),
            finished=endings.count(Ending.FINISHED),
            errors=endings.count(Ending.ERROR),
            left=endings.count(Ending.LEFT),
            attempts=counts.attempts,
            hedges=counts.hedges,
            continuations=counts.continuations,
            by_ids=counts.by_ids,
            faults=len(self._weather.faults),
            digest=self._world.trace.digest,
        )


def _engine_kind(rng: Random, engine_id: str, model: str) -> EngineKind:
    return EngineKind(
        id=engine_id,
        model=model,
        hardware=int(rng.random() < 0.2),
        slots=rng.choice((2, 4, 16)),
        load_seconds=0.3 + 1.5 * rng.random(),
        prefill_seconds=0.05 + 0.6 * rng.random(),
        pace=rng.choice((0.15, 0.3, 0.6)),
        tells_ids=rng.random() < 0.9,
        continues_by_ids=rng.random() < 0.85,
        ends_apart=rng.random() < 0.3,
    )


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """The product's log is of no use here; but what it calls an error is one."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), processors=[_logged])
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


def _logged(logger: object, method: str, event: object) -> str:
    raise AssertionError(f"the product logged an error: {event}")
