"""What a run is like, drawn before it begins: who calls when, what goes wrong, and what is out of the ordinary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from simulation import asks, faults
from simulation.asks import Ask
from simulation.faults import Fault, Kind

#: Requests a second, all models together.
ARRIVALS_PER_SECOND = 2.0
#: One run in so many has a burst of callers, a query of death, engines that answer nothing but errors.
BURST_ONE_IN, DEATH_ONE_IN, ERRORS_ONE_IN = 12, 8, 20
#: All callers of a burst, and all that send a query of death at once, come within so many seconds.
AT_ONCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Weather:
    """One run's."""

    #: (seconds after the network has begun to serve, what), in order.
    asks: list[tuple[float, Ask]]
    faults: list[Fault]
    #: From the first caller on every engine answers errors, and nothing else is wrong.
    only_errors: bool


def draw(rng: Random, seconds: float, nodes: int, models: list[str]) -> Weather:
    """A run that lasts so many seconds, on so many nodes that serve these models."""
    coming = list(_steady(rng, seconds, models))
    only_errors = not rng.randrange(ERRORS_ONE_IN)
    if only_errors:
        gone_wrong = [Fault(0.0, Kind.ALL_ERR, None, 0, seconds)]
    else:
        gone_wrong = faults.draw(rng, seconds, nodes)
        if not rng.randrange(BURST_ONE_IN):
            coming += _burst(rng, seconds, models)
        if not rng.randrange(DEATH_ONE_IN):
            coming += _deaths(rng, seconds, models)
    coming.sort(key=lambda come: come[0])
    numbered = [(at, replace(ask, number=number)) for number, (at, ask) in enumerate(coming, 1)]
    return Weather(numbered, gone_wrong, only_errors)


def _steady(rng: Random, seconds: float, models: list[str]) -> Iterator[tuple[float, Ask]]:
    at = 0.0
    while (at := at + rng.expovariate(ARRIVALS_PER_SECOND)) < seconds:
        yield at, asks.draw(rng, 0, models)


def _burst(rng: Random, seconds: float, models: list[str]) -> Iterator[tuple[float, Ask]]:
    """Far more callers at once than all slots of a model."""
    began, model = rng.random() * seconds, rng.choice(models)
    for _ in range(rng.choice((40, 80, 160))):
        yield began + AT_ONCE_SECONDS * rng.random(), asks.draw(rng, 0, [model])


def _deaths(rng: Random, seconds: float, models: list[str]) -> Iterator[tuple[float, Ask]]:
    """One prompt that engines crash of, sent again and again, or by several at once."""
    deadly = replace(asks.draw(rng, 0, models), deadly=True, bad=False, leaves_after=None, patience=None)
    began, at_once = rng.random() * seconds, rng.random() < 0.3
    for _ in range(rng.randint(2, 6)):
        at = began + AT_ONCE_SECONDS * rng.random() if at_once else rng.random() * seconds
        request_id = rng.getrandbits(128).to_bytes(16, "big")
        yield at, replace(deadly, request_id=request_id, seed=rng.getrandbits(31))
