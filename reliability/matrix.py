"""Every token position x every fault x every shape of answer, on simulated engines: no caller may notice.

One run: all engines of a group are told to hold at the position; a request is asked; when the engine that got it
stands at the position, the others are let go and that node is struck. So a fault strikes exactly there, at full speed
and on any machine. What the caller gets is held against the same answer without a fault.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from reliability.caller import Answer, Caller, says_something
from reliability.engine_socket import EngineSocket
from reliability.faults import Fault, Victim, mend, recover, strike
from reliability.figures import Gaps
from reliability.judge import NotWhole, Transcript, differences, read_stream, read_whole
from reliability.network import Network, Node, a_network
from reliability.results import Row
from reliability.shapes import POSITIONS, QUESTIONS, TOKENS_MIN, Shape, request
from reliability.waiting import NotInTime, until
from shrk_coordinator.state.request import Attempt

#: Groups of nodes that are struck at the same time, and the nodes of each: one lost, one that goes on, one to spare.
GROUPS, NODES_EACH = 6, 3
#: An answer takes a fifth of a second: long enough that pieces travel one by one.
TOKENS_PER_SECOND = 400
#: A run waits at most some 25 s, for an agent to give up an engine that hangs.
RUN_SECONDS_MAX = 75.0
#: Runs whose request came to a node that had only just returned, and was not held: they are tried again so often.
TRIES_MAX = 4
#: Of so many cases the sample takes one: each position four times, each pair of fault and shape eight or nine times.
SAMPLE_STEP = 8
#: What pieces need from an engine to its caller where none of them tells that it has arrived.
SETTLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """One place in the matrix."""

    fault: Fault
    shape: Shape
    position: int

    def __str__(self) -> str:
        return f"{self.fault}/{self.shape}/{self.position}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read FAULT/SHAPE/POSITION. Raises ValueError with what is allowed."""
        fault, _, rest = text.partition("/")
        shape, _, position = rest.partition("/")
        known = fault in set(Fault) and shape in set(Shape)
        if not known or not position.isdecimal() or int(position) >= POSITIONS:
            allowed = f"{', '.join(Fault)}; {', '.join(Shape)}; 0 to {POSITIONS - 1}"
            raise ValueError(f"{text!r} is not FAULT/SHAPE/POSITION with one of {allowed}")
        return cls(Fault(fault), Shape(shape), int(position))

    @property
    def strikes(self) -> bool:
        """Whether the fault can be felt: an answer that is not streamed has no events to repeat."""
        return not (self.fault is Fault.REPEATED_PIECE and self.shape is Shape.WHOLE)


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one case."""

    case: Case
    #: Why it failed; empty where the caller noticed nothing.
    problem: str = ""
    #: How other nodes went on: "by_ids", "replay", or "anew" where nothing had been delivered.
    ways: tuple[str, ...] = ()
    #: The token at which the first of them took over; None where it began anew.
    seam: int | None = None
    #: From the fault to the next piece that the caller saw; None where it had not seen any before.
    gap_seconds: float | None = None
    #: From the fault to the first piece, or to the whole answer, where nothing had been seen before.
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unbroken:
    """An answer without a fault."""

    transcript: Transcript
    #: After how many pieces the caller has seen 0, 1, 2, … tokens.
    pieces: tuple[int, ...]


class NotHeld(Exception):
    """The request came to a node that was not held: nothing was tried."""


def every_case() -> list[Case]:
    """The whole matrix."""
    return [Case(f, s, p) for f, s, p in itertools.product(Fault, Shape, range(POSITIONS))]


def sample(seed: int) -> list[Case]:
    """An eighth of the matrix that has every position and every pair of fault and shape."""
    pairs = list(itertools.product(Fault, Shape))
    starts = [at % SAMPLE_STEP for at in range(len(pairs))]
    random.Random(seed).shuffle(starts)
    return [
        Case(fault, shape, position)
        for (fault, shape), start in zip(pairs, starts, strict=True)
        for position in range(start, POSITIONS, SAMPLE_STEP)
    ]


async def run(cases: Sequence[Case], seed: int, progress: Callable[[Sequence[Run]], None]) -> list[Run]:
    """Try the cases, several at a time, in an order drawn from the seed."""
    waiting = deque(random.Random(seed).sample(cases, len(cases)))
    done: list[Run] = []
    async with a_network() as network:
        known: dict[tuple[Shape, int], Unbroken] = {}
        groups = [Group(network, f"g{number}", seed, known) for number in range(min(GROUPS, len(cases)))]
        await asyncio.gather(*(group.start() for group in groups))
        await groups[0].learn({(case.shape, _question(case)) for case in cases})

        async def work(group: Group) -> None:
            while waiting:
                done.append(await group.try_case(waiting.popleft()))
                progress(done)

        await asyncio.gather(*(work(group) for group in groups))
    return done


def _question(case: Case) -> int:
    return case.position % QUESTIONS


class Group:
    """Three nodes that serve one model, and one request at a time."""

    def __init__(self, network: Network, model: str, seed: int, known: dict[tuple[Shape, int], Unbroken]) -> None:
        """`known`: the answers without a fault, shared by all groups."""
        self._network = network
        self._model = model
        self._seed = seed
        self._known = known
        self._nodes: list[Node] = []

    async def start(self) -> None:
        """Bring the nodes up."""
        names = [f"{self._model}n{number}" for number in range(NODES_EACH)]
        adding = (self._network.add_simulated(n, self._model, tokens_per_second=TOKENS_PER_SECOND) for n in names)
        self._nodes = list(await asyncio.gather(*adding))
        await self._network.until_well(self._model, NODES_EACH)

    async def learn(self, questions: Iterable[tuple[Shape, int]]) -> None:
        """Ask without a fault, once for each question."""
        for shape, question in sorted(questions):
            body = request(shape, self._model, question, self._seed)
            answer = await Caller(self._network.session, self._network.chat_url, body).ask()
            assert answer.status == 200, f"{shape} without a fault: {answer.body[:500]!r}"
            self._known[shape, question] = Unbroken(_read(shape, answer), await self._pieces(body))

    async def _pieces(self, body: dict[str, Any]) -> tuple[int, ...]:
        """From the engine's own stream, which tells the tokens of each event."""
        engine = self._nodes[0].engine()
        assert engine is not None
        told = await engine.chat(body | {"stream": True, "return_token_ids": True})
        after, pieces = [0], 0
        for event in told.split(b"\n\n"):
            pieces += says_something(event)
            if event.startswith(b"data: {"):
                tokens = [len(c.get("token_ids") or ()) for c in json.loads(event[6:])["choices"]]
                after += [pieces] * sum(tokens)
                after[-1] = pieces
        assert len(after) > TOKENS_MIN > POSITIONS, f"an answer has only {len(after)} tokens: {body}"
        return tuple(after)

    async def try_case(self, case: Case) -> Run:
        """One run; what goes wrong with it is its result."""
        for _ in range(TRIES_MAX):
            try:
                async with asyncio.timeout(RUN_SECONDS_MAX):
                    return await self._try(case)
            except NotHeld:
                continue
            except (TimeoutError, NotInTime, NotWhole, aiohttp.ClientError, OSError) as error:
                await recover(self._nodes, self._network, self._model)
                return Run(case, f"{type(error).__name__}: {str(error) or f'not within {RUN_SECONDS_MAX:g} s'}")
        await recover(self._nodes, self._network, self._model)
        return Run(case, f"the request came {TRIES_MAX} times to a node that was not held")

    async def _try(self, case: Case) -> Run:
        unbroken = self._known[case.shape, _question(case)]
        await self._network.until_well(self._model, 2)
        held = await self._hold(case.position)
        body = request(case.shape, self._model, _question(case), self._seed)
        caller = Caller(self._network.session, self._network.chat_url, body)
        asking = asyncio.create_task(caller.ask())
        try:
            attempt = await self._placed(asking, spoken=case.shape.streamed and case.position > 0)
            node = self._network.node_of(attempt)
            if node.name not in held or attempt.life != self._network.serving(self._model).get(node.name):
                raise NotHeld
            engine, before = held.pop(node.name)
            victim = await Victim.of(node, attempt.life, engine)
            await self._until_held(case, engine, before, caller, unbroken)
            await asyncio.gather(*(other.clear() for other, _ in held.values()))
            struck_at = time.monotonic()
            await strike(case.fault, victim, case.position)
            answer = await asking
            took = time.monotonic() - struck_at
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.gather(*(other.clear() for other, _ in held.values()))
        judged = self._judge(case, answer, unbroken, struck_at, took)
        await mend(case.fault, victim, self._network, self._model)
        return judged

    async def _hold(self, position: int) -> dict[str, tuple[EngineSocket, int]]:
        """Let every engine that serves now stand still at the position; with the tokens it had generated before."""
        held = {}
        for node in self._nodes:
            engine = node.engine() if node.name in self._network.serving(self._model) else None
            if engine is not None and await engine.clear() and await engine.arm("hang", position):
                held[node.name] = engine, (await engine.figures()).generated
        return held

    async def _placed(self, asking: asyncio.Task[Answer], *, spoken: bool) -> Attempt:
        found: list[Attempt] = []

        def accepted() -> bool:
            attempt = self._network.attempt(self._model, spoken=spoken)
            found.extend([attempt] if attempt else [])
            return bool(found) or asking.done()

        await until(accepted, "the request is accepted by a node", every=0.002)
        if not found:
            raise NotHeld
        return found[-1]

    async def _until_held(
        self, case: Case, engine: EngineSocket, before: int, caller: Caller, unbroken: Unbroken
    ) -> None:
        """Until the engine stands at the position, and the caller has seen all that came before it."""
        await engine.until_generated(before + case.position)
        if not case.shape.streamed or not case.position:
            return
        pieces = unbroken.pieces
        await caller.until(pieces[case.position])
        if pieces[case.position] == pieces[case.position - 1]:
            await asyncio.sleep(SETTLE_SECONDS)

    def _judge(self, case: Case, answer: Answer, unbroken: Unbroken, struck_at: float, took: float) -> Run:
        if answer.status != 200:
            return Run(case, f"status {answer.status}: {answer.body[:500].decode(errors='replace')}")
        entry = self._network.entry(answer.request_id)
        assert entry is not None, "the coordinator remembers thousands of requests"
        later = entry.attempts[1:]
        problem = "the fault was not felt" if case.strikes and not later else ""
        try:
            problem = differences(_read(case.shape, answer), unbroken.transcript) or problem
        except NotWhole as error:
            problem = str(error)
        after = [at - struck_at for at in answer.pieces if at > struck_at]
        paused = after[0] if after else None
        began = case.shape.streamed and bool(case.position)
        return Run(
            case,
            problem,
            tuple(str(attempt.resume or "anew") for attempt in later),
            next((attempt.first_index for attempt in later if attempt.resume), None),
            gap_seconds=paused if began else None,
            wait_seconds=None if began else paused if case.shape.streamed else took,
        )


def _read(shape: Shape, answer: Answer) -> Transcript:
    return read_stream(answer.body) if shape.streamed else read_whole(answer.body)


_WORDS = {
    Fault.KILL_AGENT: "Nobody notices a `kill -9` of the agent",
    Fault.KILL_ENGINE: "… a `kill -9` of the engine",
    Fault.STOP_ENGINE: "… an engine that freezes (SIGSTOP)",
    Fault.RESET_LINK: "… a link that is reset (RST)",
    Fault.BLACK_HOLE: "… a link that swallows everything",
    Fault.BAD_PIECE: "… a piece that the engine cuts off",
    Fault.REPEATED_PIECE: "… a piece that the engine sends twice",
    Fault.DRAIN: "… a node that is told to stop, with no time left",
}


def rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    """One for each fault."""
    by_fault = {fault: [run for run in runs if run.case.fault is fault] for fault in Fault}
    return tuple(
        Row(
            promise=_WORDS[fault],
            tried="before the first token and after each of 64, for text, tool call, JSON and not streamed: "
            "status 200, no error, and the answer equal to the one without the fault, usage included; "
            f"{GROUPS} groups of {NODES_EACH} nodes at the same time",
            n=len(mine),
            failures=sum(bool(run.problem) for run in mine),
            gaps=Gaps.of([run.gap_seconds for run in mine if run.gap_seconds is not None]),
            seen=_seen(mine),
        )
        for fault, mine in by_fault.items()
        if mine
    )


def _seen(runs: Sequence[Run]) -> str:
    ways = Counter(way for run in runs for way in run.ways)
    taken = ", ".join(f"{count} {way.replace('_', ' ')}" for way, count in sorted(ways.items()))
    seams = [run for run in runs if run.seam is not None]
    exact = sum(run.seam == run.case.position for run in seams)
    told = [f"others took over {taken}" if taken else "nobody had to take over"]
    if seams:
        told.append(f"{exact} of {len(seams)} seams exactly at the position")
    if waits := [run.wait_seconds for run in runs if run.wait_seconds is not None]:
        told.append(f"where nothing had been seen yet, the answer came at most {max(waits):.1f} s later")
    return "; ".join(told)


def failed(runs: Sequence[Run], seed: int) -> tuple[str, ...]:
    """What went wrong, with the command that tries it again."""
    command = "python -m reliability --only matrix --case"
    return tuple(f'{run.problem}  [{command} "{run.case}" --seed {seed}]' for run in runs if run.problem)
