"""What a request costs the coordinator's state among ten nodes, a thousand and ten thousand. No network, no processes.

Each life is the same at every size: requests come, every node reports as often as nodes do, and the coordinator ticks.
What is timed is each event by itself, so that one that holds everything up is seen.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from reliability.figures import percentile
from reliability.results import Row
from shrk_contract.terms import REPORT_INTERVAL_SECONDS, Endpoint, EngineReport, Fault, Host, Pin, Report, State, Status
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.affinity import NO_AFFINITY
from shrk_coordinator.state.breaker import FAILURES_MAX
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import Event, FailureDetail

SIZES = (10, 1_000, 10_000)
#: A machine's own requests at once.
SLOTS = 4
#: Nodes that serve each model where there are many models.
NODES_PER_MODEL = 3
#: Of those models so many are asked for.
MODELS_ASKED = 300
#: Conversations that take turns, where requests belong to some.
CONVERSATIONS = 1_000
REQUESTS_PER_SECOND, TICKS_PER_SECOND = 200, 4
#: Of virtual time: longer than a request waits for a node, so that those that waited in vain are seen too.
LIFE_SECONDS = 12
#: How much more a request may cost where there are ten times as many nodes and more: memory is slower where there is
#: more of it, and no more than that.
GROWTH_MAX = 3.0
#: No single event may hold up all streams for longer: a fifth of what the loop may lag.
EVENT_SECONDS_MAX = 0.02


class Case(StrEnum):
    """What kind of network is asked."""

    FREE = "every node is free"
    HOMES = "every node is free, and every request belongs to one of a thousand conversations"
    BUSY = "every node is busy"
    FAILING = "every node keeps failing"
    RARE = "each three nodes have a model of their own, and all are busy"
    UNKNOWN = "nobody has the model"
    LOST = "an answer loses its node, and no other is of the same kind"


@dataclass(slots=True)
class Cost:
    """One case at one size; seconds of one core."""

    case: Case
    nodes: int
    #: Of each request, from its arrival until it has an answer, waits or is refused.
    requests: list[float] = field(default_factory=list)
    #: Of each report and each tick.
    others: list[float] = field(default_factory=list)
    #: Virtual time that passed.
    seconds: float = 0.0

    @property
    def typical(self) -> float:
        """Of one request."""
        return percentile(sorted(self.requests), 0.5)

    @property
    def worst(self) -> float:
        """Of any one event, but for one in a thousand: once in a while memory is tidied up."""
        return percentile(sorted([*self.requests, *self.others]), 0.999)

    @property
    def share(self) -> float:
        """Of a core that reports and ticks take."""
        return sum(self.others) / self.seconds


class Life:
    """One network of one size, under a clock of its own."""

    def __init__(self, case: Case, nodes: int, seed: int) -> None:
        self.state = CoordinatorState(random.Random(seed))
        self.now = 1_000.0
        self._case = case
        self._nodes = nodes
        self._requests = 0
        self._sequence = 0
        for number in range(nodes):
            self.state.handle(seen.NodeHello(self.now, f"node_{number:05}", number, 1, "owner"))
            self.report(number)
        if case is Case.FAILING:
            for node in self.state.roster.nodes.values():
                for offer in node.offers.values():
                    for _ in range(FAILURES_MAX):
                        offer.standing.failed(self.now)

    def _model(self, number: int) -> str:
        return f"m{number // NODES_PER_MODEL}" if self._case in (Case.RARE, Case.UNKNOWN) else "m0"

    def report(self, number: int) -> None:
        """What a node says every few seconds."""
        busy = self._case in (Case.BUSY, Case.RARE)
        self._sequence += 1
        engine = EngineReport(
            id="engine",
            model=self._model(number),
            status=Status(State.ONLINE),
            endpoints=(Endpoint.CHAT_COMPLETIONS,),
            slots=SLOTS,
            running=SLOTS if busy else 0,
            pin=Pin(engine="sim", model_revision=str(number)),
        )
        report = Report(Host("host"), Status(State.ONLINE), (engine,), sequence=self._sequence)
        self.state.handle(seen.NodeReported(self.now, f"node_{number:05}", number, report))

    def tick(self) -> None:
        """A quarter of a second has passed."""
        self.state.handle(seen.Tick(self.now))

    def request(self) -> None:
        """One request, as far as it goes."""
        self._requests += 1
        model = (
            "llama"
            if self._case is Case.UNKNOWN
            else self._model(self._requests % MODELS_ASKED * NODES_PER_MODEL % self._nodes)
        )
        request_id = self._requests.to_bytes(16, "big")
        arrived = seen.RequestArrived(
            self.now,
            request_id,
            model,
            Endpoint.CHAT_COMPLETIONS,
            streaming=True,
            by_ids=True,
            key_id="key",
            affinity=1 + self._requests % CONVERSATIONS if self._case is Case.HOMES else NO_AFFINITY,
        )
        start = _start(self.state.handle(arrived))
        if start is None:
            return
        self._say(seen.AttemptAccepted(self.now, start.stream))
        self._say(seen.FirstPieceDelivered(self.now, start.stream))
        if self._case is Case.LOST:
            lost = FailureDetail(Fault.NODE, "lost", code="engine_lost")
            start = _start(self._say(seen.AttemptFailed(self.now, start.stream, lost)))
            assert start is not None, "there are others"
        self._say(seen.LastTokenDelivered(self.now, start.stream, 10))
        self._say(seen.AttemptFinished(self.now, start.stream, 10))
        self._say(seen.CallerLeft(self.now, request_id))

    def _say(self, event: Event) -> Sequence[do.Effect]:
        return self.state.handle(event)


def _start(effects: Sequence[do.Effect]) -> do.StartAttempt | None:
    return next((effect for effect in effects if isinstance(effect, do.StartAttempt)), None)


def live(case: Case, nodes: int, seed: int, seconds: int = LIFE_SECONDS) -> Cost:
    """So many virtual seconds of one network."""
    life, cost = Life(case, nodes, seed), Cost(case, nodes, seconds=float(seconds))
    gc.collect()  # What other lives have left is no cost of this one.
    reports_per_request = nodes / REPORT_INTERVAL_SECONDS / REQUESTS_PER_SECOND
    due, reporting = 0.0, 0
    for number in range(seconds * REQUESTS_PER_SECOND):
        life.now += 1 / REQUESTS_PER_SECOND
        due += reports_per_request
        while due >= 1:
            due, reporting = due - 1, (reporting + 1) % nodes
            cost.others.append(_seconds(life.report, reporting))
        if number % (REQUESTS_PER_SECOND // TICKS_PER_SECOND) == 0:
            cost.others.append(_seconds(life.tick))
        cost.requests.append(_seconds(life.request))
    return cost


def _seconds(work: Callable[..., None], *arguments: int) -> float:
    # This thread's own time: whatever else the machine does meanwhile is no cost of ours.
    began = time.thread_time()
    work(*arguments)
    return time.thread_time() - began


async def run(seconds: int, seed: int, progress: Callable[[int], None]) -> tuple[Cost, ...]:
    """Every case at every size; `progress` hears how many are over."""
    costs: list[Cost] = []
    for case in Case:
        for nodes in SIZES:
            costs.append(await asyncio.to_thread(live, case, nodes, seed, seconds))
            progress(len(costs))
    return tuple(costs)


def rows(costs: Sequence[Cost]) -> tuple[Row, ...]:
    """That a request costs much the same wherever there are many nodes, and that nothing takes long."""
    found = []
    for case in Case:
        *_, before, last = of_case = [cost for cost in costs if cost.case is case]
        found.append(
            Row(
                promise=f"A request costs no more among {last.nodes:,} nodes than among {before.nodes:,}: {case}",
                tried=f"{last.seconds:g} simulated seconds of the coordinator's state, {REQUESTS_PER_SECOND} requests "
                f"a second, reports and ticks; no more than {GROWTH_MAX:g} times as much, and no event longer "
                f"than {EVENT_SECONDS_MAX * 1000:g} ms, but for one in a thousand",
                n=sum(len(cost.requests) for cost in of_case),
                failures=len(_broken(before, last)),
                seen="; ".join(map(_told, of_case)),
            )
        )
    return tuple(found)


def _broken(before: Cost, last: Cost) -> list[str]:
    """What was not as promised."""
    broken = []
    if last.typical > GROWTH_MAX * before.typical:
        broken.append(f"{last.typical / before.typical:.1f} times as much as among {before.nodes:,} nodes")
    if last.worst > EVENT_SECONDS_MAX:
        broken.append(f"an event took {last.worst * 1000:.0f} ms")
    return broken


def _told(cost: Cost) -> str:
    return (
        f"{cost.typical * 1e6:,.0f} µs at {cost.nodes:,} nodes (the longest event {cost.worst * 1000:.1f} ms, "
        f"reports and ticks {100 * cost.share:.1f} % of a core)"
    )


def failed(costs: Sequence[Cost], seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = f"python -m reliability --only placing --seed {seed}"
    lines = []
    for case in Case:
        of_case = [cost for cost in costs if cost.case is case]
        if len(of_case) == len(SIZES):
            lines += [f"{case}: {what}  [{command}]" for what in _broken(*of_case[-2:])]
    return tuple(lines)
