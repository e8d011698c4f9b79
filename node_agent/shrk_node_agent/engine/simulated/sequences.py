"""Answers in the making, and the one step in which all of them advance.

vLLM batches continuously: each step gives every running sequence one token. So does the stepper here, without
giving way to anything else meanwhile: all writes of a step leave in the same tick of the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shrk_node_agent.engine.simulated.faults import SLOW_STEP_SECONDS, Fault, Faults, Kind
from shrk_node_agent.engine.simulated.language import Speaker
from shrk_node_agent.engine.simulated.vocabulary import END, TEXTS

#: Sequences that may wait for a slot: more than 64 engines' worth of callers, far below what fills memory.
WAITING_MAX = 4096
#: How long to wait where every running sequence's reader is behind.
BLOCKED_SECONDS = 0.005
#: Bytes already written leave before the process is killed: several ticks of the loop, unnoticeable to people.
LAST_WORDS_SECONDS = 0.02


class EngineFullError(Exception):
    """WAITING_MAX sequences are waiting; another engine, or a later try, helps."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it goes. Zeros are as fast as the machine can."""

    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0
    #: Up to this much is added to each step and to each first token, at random.
    jitter_seconds: float = 0.0

    def slowed(self, factor: float) -> Pace:
        """All of it takes `factor` times as long."""
        return Pace(self.first_token_seconds * factor, self.tokens_per_second / factor, self.jitter_seconds * factor)


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request says about its answer; the stop strings may be none."""

    max_tokens: int
    seed: int = 0
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    script: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer and what it makes visible."""

    id: int
    #: Empty while a possible stop string is held back, and for the end token.
    text: str
    #: "stop", "length" or "abort" with the last token.
    finish_reason: str | None
    #: The stop string that ended it.
    stop_reason: str | None
    #: This event is to be written cut off (a fault).
    garbled: bool = False
    #: This event is to be written twice (a fault).
    repeated: bool = False


class StopStrings:
    """Holds text back for as long as it may be the beginning of a stop string."""

    def __init__(self, stop: tuple[str, ...], include: bool) -> None:
        self._stop = stop
        self._include = include
        self._hold = max((len(s) for s in stop), default=1) - 1
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown by now, and the stop string that was met."""
        if not self._stop:
            return text, None
        self._held += text
        found = min(((at, s) for s in self._stop if (at := self._held.find(s)) >= 0), default=None)
        if found is not None:
            at, stop = found
            return self._held[: at + (len(stop) if self._include else 0)], stop
        shown = self._held[: len(self._held) - self._hold] if self._hold else self._held
        self._held = self._held[len(shown) :]
        return shown, None

    def rest(self) -> str:
        """What is still held back when the answer ends otherwise."""
        held, self._held = self._held, ""
        return held


class Answer:
    """One sequence: a prompt being answered. `on_token` is called once a step, synchronously."""

    __slots__ = (
        "_sampling",
        "_speaker",
        "_stops",
        "blocked",
        "on_token",
        "produced",
        "prompt_tokens",
        "ready_at",
        "request_id",
    )

    def __init__(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        on_token: Callable[[Token], None],
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        """`blocked` tells that the reader is behind: then the sequence stands still, as its buffer is bounded."""
        self.request_id = request_id
        self.on_token = on_token
        self.blocked = blocked
        self.prompt_tokens = len(prompt_ids)
        self.produced = 0
        self.ready_at = 0.0
        self._sampling = sampling
        self._stops = StopStrings(sampling.stop, sampling.include_stop)
        self._speaker = Speaker(
            prompt_ids,
            seed=sampling.seed,
            script=sampling.script,
            ignore_eos=sampling.ignore_eos,
            min_tokens=sampling.min_tokens,
        )

    def advance(self, faults: Faults) -> bool:
        """Produce one token; True when it was the last."""
        early = bool(faults) and faults.strike(Kind.EMPTY_FINISH, self.produced)
        garbled = bool(faults) and faults.strike(Kind.BAD_CHUNK, self.produced)
        repeated = bool(faults) and faults.strike(Kind.REPEAT_CHUNK, self.produced)
        token = END if early else self._speaker.next()
        self.produced += 1
        finish: str | None = None
        text, stop = self._stops.add(TEXTS[token])
        if stop is not None or (token == END and (early or not self._sampling.ignore_eos)):
            finish = "stop"
        elif self.produced >= self._sampling.max_tokens:
            finish = "length"
        if finish is not None and stop is None:
            text += self._stops.rest()
        self.on_token(Token(token, text, finish, stop, garbled, repeated))
        return finish is not None

    def abort(self) -> None:
        """End it early, telling its reader."""
        self.on_token(Token(END, self._stops.rest(), "abort", None))


class Stepper:
    """Advances all running answers, `slots` at a time; the rest wait in order of arrival."""

    def __init__(self, slots: int, pace: Pace, faults: Faults, crash: Callable[[], None]) -> None:
        """`crash` kills the process; it is called after the bytes written before have left."""
        #: Since the engine began: tokens of prompts that got their first answer, and tokens of answers.
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self._slots = slots
        self._pace = pace
        self._faults = faults
        self._crash = crash
        self._random = random.Random(0)
        self._running: dict[Answer, None] = {}
        self._waiting: deque[Answer] = deque()
        self._wake = asyncio.Event()
        self._next_step = 0.0
        self._crashed = False

    @property
    def running(self) -> int:
        """Answers that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Answers that wait for one."""
        return len(self._waiting)

    @property
    def used(self) -> float:
        """Of the slots, 0 to 1."""
        return len(self._running) / self._slots

    def submit(self, answer: Answer) -> None:
        """Take an answer up; EngineFullError where too many wait already."""
        if len(self._waiting) >= WAITING_MAX:
            raise EngineFullError(f"{WAITING_MAX} sequences are waiting already")
        self._waiting.append(answer)
        self._wake.set()

    def cancel(self, answer: Answer) -> None:
        """Forget an answer, without a word; nothing happens where it is not known any more."""
        if answer in self._running:
            del self._running[answer]
        elif answer in self._waiting:
            self._waiting.remove(answer)

    def abort(self, request_id: str) -> None:
        """End the answers of one request, telling their readers."""
        for answer in [*self._running, *self._waiting]:
            if answer.request_id == request_id:
                self.cancel(answer)
                answer.abort()

    def faults_changed(self) -> None:
        """Look again: what hung may go on."""
        self._wake.set()

    def crash_now(self) -> None:
        """Kill the process, once what was written has left."""
        self._crashed = True
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._crash)

    async def run(self) -> None:
        """Step until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if self._crashed or self._hangs() or not (self._running or self._waiting):
                self._wake.clear()
                await self._wake.wait()
                self._next_step = loop.time()
                continue
            self._admit(loop.time())
            moved = self._step(loop.time())
            await self._until_next_step(loop, moved)

    def _admit(self, now: float) -> None:
        pace = self._pace_under(self._faults.due(Kind.SLOW, 0))
        while self._waiting and len(self._running) < self._slots:
            answer = self._waiting.popleft()
            answer.ready_at = now + pace.first_token_seconds + self._jitter(pace)
            self._running[answer] = None

    def _step(self, now: float) -> bool:
        """One token for everyone who is due; True if anyone was."""
        moved = False
        for answer in list(self._running):
            if answer.ready_at > now or answer.blocked():
                continue
            if self._faults:
                if self._faults.strike(Kind.CRASH, answer.produced):
                    self.crash_now()
                if self._crashed or self._faults.due(Kind.HANG, answer.produced):
                    return moved
            if answer.produced == 0:
                self.prompt_tokens += answer.prompt_tokens
            self.generated_tokens += 1
            if answer.advance(self._faults):
                del self._running[answer]
            moved = True
        return moved

    def _hangs(self) -> bool:
        return bool(self._faults) and any(self._faults.due(Kind.HANG, answer.produced) for answer in self._running)

    def _slow(self) -> Fault | None:
        due = (self._faults.due(Kind.SLOW, answer.produced) for answer in self._running) if self._faults else ()
        return next((fault for fault in due if fault is not None), None)

    def _pace_under(self, slow: Fault | None) -> Pace:
        return self._pace if slow is None or slow.factor is None else self._pace.slowed(slow.factor)

    def _jitter(self, pace: Pace) -> float:
        return self._random.random() * pace.jitter_seconds if pace.jitter_seconds else 0.0

    async def _until_next_step(self, loop: asyncio.AbstractEventLoop, moved: bool) -> None:
        slow = self._slow()
        if slow is not None and slow.factor is None:
            await asyncio.sleep(SLOW_STEP_SECONDS)
            return
        pace = self._pace_under(slow)
        now = loop.time()
        if not moved:  # All wait for their first token or for their readers.
            first = min((answer.ready_at for answer in self._running), default=now)
            await asyncio.sleep(min(max(first - now, BLOCKED_SECONDS), self._longest_wait()))
            return
        if pace.tokens_per_second <= 0:
            await asyncio.sleep(self._jitter(pace))
            return
        # On a fixed grid, so that a late step does not slow the rest; but never in a burst.
        self._next_step = max(now, self._next_step + 1 / pace.tokens_per_second + self._jitter(pace))
        await asyncio.sleep(self._next_step - now)

    def _longest_wait(self) -> float:
        """Newcomers with a free slot are admitted within this time."""
        rate = self._pace.tokens_per_second
        return max(BLOCKED_SECONDS, 1 / rate if rate > 0 else BLOCKED_SECONDS)
