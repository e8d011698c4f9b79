"""Answers in the making: slots, steps, stop strings, and what faults do to them. Without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.engine.simulated.faults import Fault, Faults, Kind
from shrk_node_agent.engine.simulated.language import answer
from shrk_node_agent.engine.simulated.prompts import render_chat
from shrk_node_agent.engine.simulated.sequences import (
    WAITING_MAX,
    Answer,
    EngineFullError,
    Pace,
    Sampling,
    Stepper,
    StopStrings,
    Token,
)
from shrk_node_agent.engine.simulated.vocabulary import END, encode
from support.simulated_engine import until

PROMPT = render_chat([{"role": "user", "content": "hello"}])


class Listener:
    """Collects one answer's tokens."""

    def __init__(self, journal: list[Listener] | None = None) -> None:
        self.tokens: list[Token] = []
        self.ended = asyncio.Event()
        self._journal = journal

    def __call__(self, token: Token) -> None:
        self.tokens.append(token)
        if self._journal is not None:
            self._journal.append(self)
        if token.finish_reason is not None:
            self.ended.set()

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]


@asynccontextmanager
async def stepping(
    slots: int = 16, *faults: Fault, crash: Callable[[], None] = lambda: None, pace: Pace | None = None
) -> AsyncIterator[Stepper]:
    armed = Faults()
    for fault in faults:
        armed.arm(fault)
    stepper = Stepper(slots, pace or Pace(), armed, crash)
    task = asyncio.create_task(stepper.run())
    try:
        yield stepper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def said(listener: Listener, sampling: Sampling | None = None, prompt: list[int] = PROMPT) -> Answer:
    return Answer("r", prompt, sampling or Sampling(max_tokens=100), listener)


async def test_an_answer_is_what_the_language_says_and_ends_with_it() -> None:
    listener = Listener()
    async with stepping() as stepper:
        stepper.submit(said(listener))
        await listener.ended.wait()
    assert listener.ids == answer(PROMPT)
    assert listener.tokens[-1] == Token(END, "", "stop", None)


async def test_all_running_answers_get_one_token_a_step() -> None:
    journal: list[Listener] = []
    listeners = [Listener(journal) for _ in range(5)]
    async with stepping() as stepper:
        for listener in listeners:
            stepper.submit(said(listener, Sampling(max_tokens=10)))
        await asyncio.gather(*(listener.ended.wait() for listener in listeners))
    assert journal == listeners * 10


async def test_no_more_answers_run_than_there_are_slots() -> None:
    first, second, third = (Listener() for _ in range(3))
    async with stepping(2) as stepper:
        for listener in (first, second, third):
            stepper.submit(said(listener, Sampling(max_tokens=10)))
        await first.ended.wait()
        assert (len(third.tokens), stepper.waiting) in ((0, 1), (1, 0))
        assert stepper.running <= 2
        await third.ended.wait()
    assert second.ended.is_set()


async def test_a_cancelled_answer_gets_no_further_token_and_frees_its_slot() -> None:
    forever, next_in_line = Listener(), Listener()
    async with stepping(1, pace=Pace(tokens_per_second=1000)) as stepper:
        endless = said(forever, Sampling(max_tokens=10**6, ignore_eos=True))
        stepper.submit(endless)
        stepper.submit(said(next_in_line, Sampling(max_tokens=3)))
        await until(lambda: bool(forever.tokens))
        stepper.cancel(endless)
        count = len(forever.tokens)
        await next_in_line.ended.wait()
    assert len(forever.tokens) == count


async def test_an_aborted_answer_is_told_so() -> None:
    listener = Listener()
    async with stepping(pace=Pace(first_token_seconds=3600)) as stepper:
        stepper.submit(said(listener))
        stepper.abort("r")
        await listener.ended.wait()
        assert (stepper.running, stepper.waiting) == (0, 0)
    assert [token.finish_reason for token in listener.tokens] == ["abort"]


async def test_an_answer_whose_reader_is_behind_stands_still_and_the_others_go_on() -> None:
    slow, quick = Listener(), Listener()
    behind = True
    async with stepping() as stepper:
        stepper.submit(Answer("r", PROMPT, Sampling(max_tokens=5), slow, lambda: behind))
        stepper.submit(said(quick))
        await quick.ended.wait()
        assert slow.tokens == []
        behind = False
        await slow.ended.wait()
    assert len(slow.tokens) == 5


async def test_too_many_waiting_answers_are_refused() -> None:
    stepper = Stepper(1, Pace(), Faults(), lambda: None)
    for _ in range(WAITING_MAX):
        stepper.submit(said(Listener()))
    with pytest.raises(EngineFullError):
        stepper.submit(said(Listener()))


async def test_max_tokens_ends_an_answer_by_length() -> None:
    listener = Listener()
    async with stepping() as stepper:
        stepper.submit(said(listener, Sampling(max_tokens=3)))
        await listener.ended.wait()
    assert [token.finish_reason for token in listener.tokens] == [None, None, "length"]


@given(st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "c"]), max_size=12), st.booleans())
def test_stop_strings_are_found_wherever_tokens_are_cut(pieces: list[str], include: bool) -> None:
    stops = StopStrings(("aab", "cb"), include)
    shown, met = "", None
    for piece in pieces:
        text, met = stops.add(piece)
        shown += text
        if met:
            break
    else:
        shown += stops.rest()
    whole = "".join(pieces)
    ends = [at + (len(s) if include else 0) for s in ("aab", "cb") if (at := whole.find(s)) >= 0]
    assert (met is not None) == bool(ends)
    assert whole.startswith(shown)
    if not ends:
        assert shown == whole
    else:
        assert len(shown) in ends


async def test_a_stop_string_ends_the_answer_before_it() -> None:
    listener = Listener()
    prompt = render_chat([{"role": "user", "content": "Count to 3"}])
    async with stepping() as stepper:
        stepper.submit(said(listener, Sampling(max_tokens=50, stop=(" near by",)), prompt))
        await listener.ended.wait()
    assert "".join(token.text for token in listener.tokens) == "And circle sea"
    assert listener.tokens[-1].stop_reason == " near by"


async def test_a_crash_comes_after_exactly_its_tokens() -> None:
    crashed = asyncio.Event()
    listener = Listener()
    async with stepping(16, Fault(Kind.CRASH, 4), crash=crashed.set) as stepper:
        stepper.submit(said(listener))
        await crashed.wait()
    assert listener.ids == answer(PROMPT)[:4]


async def test_a_hanging_engine_goes_on_once_the_fault_is_cleared() -> None:
    listener = Listener()
    faults = Faults()
    faults.arm(Fault(Kind.HANG, 2))
    stepper = Stepper(16, Pace(), faults, lambda: None)
    task = asyncio.create_task(stepper.run())
    stepper.submit(said(listener))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(listener.tokens) == 2
    faults.clear()
    stepper.faults_changed()
    await listener.ended.wait()
    task.cancel()
    assert listener.ids == answer(PROMPT)


async def test_an_empty_finish_is_a_good_end_without_a_word() -> None:
    struck, spared = Listener(), Listener()
    async with stepping(1, Fault(Kind.EMPTY_FINISH, 0, times=1)) as stepper:
        stepper.submit(said(struck))
        stepper.submit(said(spared))
        await spared.ended.wait()
    assert [(token.text, token.finish_reason) for token in struck.tokens] == [("", "stop")]
    assert spared.ids == answer(PROMPT)


async def test_a_first_token_that_is_not_due_holds_its_slot_and_waits() -> None:
    listener = Listener()
    async with stepping(pace=Pace(first_token_seconds=3600)) as stepper:
        stepper.submit(said(listener))
        await until(lambda: stepper.running == 1)
        for _ in range(100):
            await asyncio.sleep(0)
    assert listener.tokens == []


@pytest.mark.parametrize("text", ["nonsense", "crash@", "crash@x", "crash@-1", ""])
def test_a_fault_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    if text == "crash@":
        assert Fault.parse(text) == Fault(Kind.CRASH)
        return
    with pytest.raises(ValueError, match="KIND one of crash, hang"):
        Fault.parse(text)


def test_a_fault_reads_as_it_is_written() -> None:
    assert Fault.parse("bad-chunk@12") == Fault(Kind.BAD_CHUNK, 12)
    assert Fault.parse("query-of-death") == Fault(Kind.QUERY_OF_DEATH)
    assert Fault.parse("query-of-death=a=b@3") == Fault(Kind.QUERY_OF_DEATH, text="a=b@3")
    assert Fault.parse("slow@2=1.5") == Fault(Kind.SLOW, 2, factor=1.5)


@pytest.mark.parametrize("text", ["hang=3", "slow=", "slow=0.5", "slow=nan", "slow=inf", "query-of-death="])
def test_a_value_that_a_fault_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="only slow=FACTOR, from 1, and query-of-death=TEXT take a value"):
        Fault.parse(text)


def test_a_slowed_pace_takes_as_many_times_as_long_in_each_part() -> None:
    assert Pace(0.2, 50, 0.01).slowed(10) == Pace(2.0, 5, 0.1)
    assert Pace().slowed(10) == Pace()


#: By which a few milliseconds become longer than any test.
AGES = 10**9


async def test_a_factor_slows_the_first_tokens_of_those_that_come_from_now_on() -> None:
    before, after, healed = Listener(), Listener(), Listener()
    faults = Faults()
    stepper = Stepper(16, Pace(first_token_seconds=0.001), faults, lambda: None)
    task = asyncio.create_task(stepper.run())
    stepper.submit(said(before))
    await until(lambda: stepper.running == 1)
    faults.arm(Fault(Kind.SLOW, factor=AGES))
    stepper.submit(said(after))
    await before.ended.wait()
    await until(lambda: stepper.running == 1)
    faults.clear()
    stepper.submit(said(healed))
    await healed.ended.wait()
    assert after.tokens == []
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_factor_slows_the_pace_from_its_token_on() -> None:
    listener = Listener()
    async with stepping(16, Fault(Kind.SLOW, 3, factor=AGES), pace=Pace(tokens_per_second=1000)) as stepper:
        stepper.submit(said(listener))
        await until(lambda: len(listener.tokens) == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(listener.tokens) == 3


async def test_a_fault_that_strikes_a_few_times_keeps_what_else_was_said_of_it() -> None:
    faults = Faults()
    faults.arm(Fault(Kind.SLOW, times=3, factor=2.0))
    assert faults.strike(Kind.SLOW, 0)
    assert faults.armed() == [Fault(Kind.SLOW, times=2, factor=2.0)]


def test_a_word_is_one_token_with_and_without_its_space() -> None:
    assert [len(encode(text)) for text in ("shark", " shark", "Shark", " Shark")] == [1, 1, 1, 1]
