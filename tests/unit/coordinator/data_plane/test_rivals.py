"""Two nodes are asked for one stream: its caller gets the answer of the first that speaks, and nothing of the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from shrk_contract.terms import CREDIT_BYTES
from shrk_coordinator.state import events as seen
from support.front import Front, PlayedAttempt, a_front, chunk, rest_of
from support.network import text_of

Racing = tuple[PlayedAttempt, PlayedAttempt, "asyncio.Future[aiohttp.ClientResponse]"]


@contextlib.asynccontextmanager
async def a_race(front: Front) -> AsyncIterator[Racing]:
    """A request that two nodes are asked for, of which neither has said anything."""
    asking = asyncio.ensure_future(front.chat())
    first = await front.attempt()
    front.driver.post(seen.HedgeDue(front.driver.now(), first.start.stream))
    yield first, await front.attempt(), asking
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_the_second_is_asked_the_same_from_the_beginning() -> None:
    async with a_front() as front, a_race(front) as (first, second, _):
        for name in ("envelope", "seed", "body", "request_id", "tell_ids", "streaming"):
            assert getattr(second.start, name) == getattr(first.start, name), name
        assert second.start.credit_bytes == CREDIT_BYTES
        assert not second.start.HasField("resume")
        assert front.counted("shrk_attempts_total", kind="hedge") == 1


async def test_of_two_the_first_that_speaks_is_the_answer_and_the_other_is_cancelled() -> None:
    for number in (0, 1):
        async with a_front() as front, a_race(front) as race:
            winner, loser, asking = race[number], race[1 - number], race[2]
            node = winner.node
            winner.say(chunk("hello"))
            assert (await front.links.cancelled.get())[0] == loser.start.stream
            loser.say(chunk("never"))
            loser.end()
            winner.say(chunk(" world"))
            winner.end()
            answer = await asking
            assert text_of(await rest_of(answer)) == "hello world"
            assert answer.headers["x-shiver-node"] == node


async def test_half_an_event_decides_it() -> None:
    async with a_front() as front, a_race(front) as (first, second, asking):
        event = chunk("whole")
        second.say(event[:10], tokens=0, more=True)
        assert (await front.links.cancelled.get())[0] == first.start.stream
        first.say(chunk("never"))
        second.say(event[10:])
        second.end()
        assert text_of(await rest_of(await asking)) == "whole"


async def test_where_the_first_is_lost_the_second_is_listened_to_and_the_other_way_round() -> None:
    for number in (0, 1):
        async with a_front() as front, a_race(front) as race:
            gone, stays, asking = race[number], race[1 - number], race[2]
            gone.lose()
            stays.say(chunk("hello"))
            stays.end()
            assert text_of(await rest_of(await asking)) == "hello"


async def test_whoever_breaks_the_contract_with_its_first_word_only_loses_the_race() -> None:
    for number in (0, 1):
        async with a_front(nodes=("a", "b", "c")) as front, a_race(front) as race:
            breaks, other, asking = race[number], race[1 - number], race[2]
            breaks.sequence = 7
            breaks.say(chunk("out of order"))
            assert (await front.links.cancelled.get())[0] == breaks.start.stream
            other.say(chunk("hello"))
            other.end()
            assert text_of(await rest_of(await asking)) == "hello"
            assert front.links.started.empty()


async def test_a_second_node_that_is_asked_when_half_an_event_has_come_is_cancelled_at_once() -> None:
    async with a_front() as front:
        asking = asyncio.ensure_future(front.chat())
        first = await front.attempt()
        event = chunk("whole")
        first.say(event[:10], tokens=0, more=True)
        front.driver.post(seen.HedgeDue(front.driver.now(), first.start.stream))
        second = await front.attempt()
        assert (await front.links.cancelled.get())[0] == second.start.stream
        second.say(chunk("never"))
        first.say(event[10:])
        first.end()
        assert text_of(await rest_of(await asking)) == "whole"


async def test_the_winners_prompt_is_what_the_next_node_goes_on_from() -> None:
    async with a_front(nodes=("a", "b", "c")) as front, a_race(front) as (first, second, asking):
        first.prompt(9, 9, 9)
        second.prompt(1, 2)
        second.say(chunk("hello"), ids=(10,))
        answer = await asking
        second.lose()
        third = await front.attempt()
        assert third.prefixes() == ([1, 2], [10])
        third.say(chunk(" world"), ids=(11,))
        third.end()
        assert text_of(await rest_of(answer)) == "hello world"


async def test_nothing_is_held_for_a_race_that_is_over() -> None:
    async with a_front() as front:
        async with a_race(front) as (first, second, asking):
            first.prompt(*range(5_000))
            first.say(chunk("x")[:5], tokens=0, more=True)
            second.prompt(*range(5_000))
            first.say(chunk("x")[5:])
            first.end()
            await rest_of(await asking)
        await front.driver.idle()
        assert front.still_held() == 0
