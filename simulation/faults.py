"""What goes wrong, and when: drawn before a run begins, begun and ended while it lasts, and all ended at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random

from simulation.babble import Babble
from simulation.coordinator import Coordinator
from simulation.site import Site
from simulation.wire import Way, set_ways
from simulation.world import World

#: What flaps breaks this often, in seconds, give or take a half.
FLAP_SECONDS = 3.0
#: A node that crawls takes so many times longer for everything.
CRAWL_FACTOR = 10.0
#: An event loop that is held up for longer would be mistaken for five seconds of silence, and rightly.
LATE_SECONDS_MAX = 4.0


class Kind(Enum):
    """What can go wrong."""

    AGENT_KILLED = "agent killed"
    UNPLUGGED = "unplugged"
    FROZEN = "frozen"
    DRAINED = "drained"
    BUSY = "says that it is busy"
    BABBLES = "babbles"
    ENGINE_CRASHED = "engine crashed"
    ENGINE_HANGS = "engine hangs"
    ENGINE_SLOW = "engine slow"
    ENGINE_QUITS = "engine quits"
    ENGINE_ERRS = "engine answers errors"
    CRAWLS = "ten times slower"
    FLAPS = "flaps"
    RESET = "link reset"
    PARTITIONED = "partitioned"
    MUTE = "mute"
    DEAF = "deaf"
    HELD_UP = "line holds up what the node says"
    HELD_DOWN = "line holds up what it is told"
    COORDINATOR_LATE = "coordinator late"
    ALL_ERR = "all engines answer errors"
    ALL_CUT = "all links are cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them."""

    at: float
    kind: Kind
    #: Which node (None: whichever has most to do), and which of its engines.
    node: int | None
    engine: int
    seconds: float


def draw(rng: Random, seconds: float, nodes: int) -> list[Fault]:
    """A run's faults: in some runs none, in some one, in some a storm."""
    count = rng.choices((0, 1, rng.randint(3, 7), rng.randint(8, 20)), (1, 3, 4, 4))[0]
    # A longer run is not a calmer one.
    count = round(count * max(1.0, seconds / 15.0))
    return sorted((_fault(rng, seconds, nodes) for _ in range(count)), key=lambda fault: fault.at)


def _fault(rng: Random, seconds: float, nodes: int) -> Fault:
    kind = rng.choice(tuple(Kind))
    lasts = rng.choice((0.3, 2.0, 5.0, 12.0, 25.0)) * (0.5 + rng.random())
    node = rng.randrange(nodes) if rng.random() < 0.5 else None
    return Fault(rng.random() * seconds, kind, node, rng.randrange(4), lasts)


class Faults:
    """Brings them about."""

    def __init__(self, world: World, coordinator: Coordinator, sites: list[Site]) -> None:
        self._world = world
        self._coordinator = coordinator
        self._sites = sites
        #: Where each that lasts is, and what ends it there.
        self._lasting: dict[Fault, list[tuple[Site, Callable[[], None]]]] = {}

    def begin(self, fault: Fault) -> None:
        """It happens."""
        if fault.kind is Kind.COORDINATOR_LATE:
            seconds = min(fault.seconds, LATE_SECONDS_MAX)
            self._world.trace.add("fault", "coordinator late", round(seconds, 3))
            self._coordinator.hold_up(seconds)
            return
        sites = self._struck(fault)
        named = ",".join(site.node_id for site in sites)
        self._world.trace.add("fault", fault.kind.value, (named, round(fault.seconds, 3)))
        for site in sites:
            site.trouble_begins()
        self._lasting[fault] = [(site, self._bring(site, fault)) for site in sites]
        self._world.clock.after(fault.seconds, partial(self._end, fault))

    def _struck(self, fault: Fault) -> list[Site]:
        if fault.kind in (Kind.ALL_ERR, Kind.ALL_CUT):
            return self._sites
        return [self._busiest() if fault.node is None else self._sites[fault.node]]

    def _busiest(self) -> Site:
        return max(self._sites, key=lambda site: len(site.agent.running) if site.agent else 0)

    def _end(self, fault: Fault) -> None:
        for site, end in self._lasting.pop(fault, ()):
            self._world.trace.add("fault", "ends: " + fault.kind.value, site.node_id)
            end()
            site.trouble_ends()

    def heal(self) -> None:
        """All of them end."""
        for fault in list(self._lasting):
            self._end(fault)

    def _bring(self, site: Site, fault: Fault) -> Callable[[], None]:
        """What it does, and what ends it."""
        match fault.kind:
            case Kind.AGENT_KILLED | Kind.UNPLUGGED:
                site.kill(quietly=fault.kind is Kind.UNPLUGGED)
                return site.power_on
            case Kind.DRAINED:
                site.drain(fault.seconds / 2, lambda: None)
                return partial(_restart, site)
            case Kind.BABBLES:
                return self._babble(site)
            case Kind.FROZEN | Kind.BUSY:
                return _process(site, fault.kind)
            case Kind.ENGINE_CRASHED | Kind.ENGINE_HANGS | Kind.ENGINE_SLOW | Kind.ENGINE_QUITS | Kind.ENGINE_ERRS:
                return _engine(site, fault)
            case Kind.CRAWLS | Kind.ALL_ERR:
                return _all_engines(site, fault.kind)
            case Kind.FLAPS:
                return self._flap(site)
            case _:
                return self._line(site, fault.kind)

    def _babble(self, site: Site) -> Callable[[], None]:
        by_stream = self._coordinator.driver.state.attempts.by_stream

        def others() -> list[int]:
            return [stream for stream, attempt in by_stream.items() if attempt.node_id != site.node_id]

        if site.agent is not None:
            site.agent.dialling.babble = Babble(self._world.rng, others)
        # Only an update mends it.
        return partial(_restart, site)

    def _flap(self, site: Site) -> Callable[[], None]:
        """Its link or an engine of it ends, over and over."""
        rng, flapping = self._world.rng, [True]

        def again() -> None:
            if not flapping:
                return
            if site.agent is None or rng.random() < 0.5:
                _cut(site)
            elif (engine := rng.choice(list(site.agent.engines.values()))).alive:
                site.agent.run(engine.crash)
            self._world.clock.after(FLAP_SECONDS * (0.5 + rng.random()), again)

        again()
        return flapping.clear

    def _line(self, site: Site, kind: Kind) -> Callable[[], None]:
        line = site.line
        if kind in (Kind.RESET, Kind.ALL_CUT):
            _cut(site)
            return lambda: None
        up, down = {
            Kind.PARTITIONED: (Way.LOST, Way.LOST),
            Kind.MUTE: (Way.LOST, Way.OPEN),
            Kind.DEAF: (Way.OPEN, Way.LOST),
            Kind.HELD_UP: (Way.HELD, Way.OPEN),
            Kind.HELD_DOWN: (Way.OPEN, Way.HELD),
        }[kind]
        set_ways(line, up, down)
        return partial(set_ways, line, Way.OPEN, Way.OPEN)


def _cut(site: Site) -> None:
    for connection in list(site.line.connections):
        connection.reset("reset by something in between")


def _all_engines(site: Site, kind: Kind) -> Callable[[], None]:
    """It is another's doing, and no restart of an engine ends it."""
    engines = list(site.agent.engines.values()) if site.agent is not None else []
    for engine in engines:
        engine.errs |= kind is Kind.ALL_ERR
        engine.slowness = CRAWL_FACTOR if kind is Kind.CRAWLS else engine.slowness

    def end() -> None:
        for engine in engines:
            engine.go_on()

    return end


def _restart(site: Site) -> None:
    site.kill()
    site.power_on()


def _process(site: Site, kind: Kind) -> Callable[[], None]:
    agent = site.agent
    if agent is None:
        return lambda: None
    if kind is Kind.FROZEN:
        agent.freeze()
        return agent.thaw
    agent.pretends_busy = True

    def end() -> None:
        agent.pretends_busy = False

    return end


def _engine(site: Site, fault: Fault) -> Callable[[], None]:
    if site.agent is None:
        return lambda: None
    engines = list(site.agent.engines.values())
    engine = engines[fault.engine % len(engines)]
    match fault.kind:
        case Kind.ENGINE_CRASHED:
            if engine.alive:
                engine.crash()
        case Kind.ENGINE_HANGS:
            engine.hang()
        case Kind.ENGINE_SLOW:
            engine.slowness = 4.0 + 3.0 * fault.engine * fault.seconds
        case Kind.ENGINE_ERRS:
            engine.errs = True
        case _:
            engine.quits = 1 + fault.engine
    return engine.go_on
