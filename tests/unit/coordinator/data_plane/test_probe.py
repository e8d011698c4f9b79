"""A probe's way through driver, relay and link: it passes only where a token came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest

from shrk_contract.terms import Endpoint, Fault
from shrk_coordinator.data_plane.probe import Prober
from shrk_coordinator.data_plane.relay import Shared
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state.probing import Probed
from support.front import SERVED, PlayedAttempt, PlayedLinks
from support.states import link_node


@dataclass
class Probing:
    """A coordinator whose nodes a test plays, and a probe of node `a` under way."""

    driver: Driver
    links: PlayedLinks
    prober: Prober
    asked: asyncio.Task[Probed]

    async def attempt(self) -> PlayedAttempt:
        """The attempt that the node is asked for."""
        return PlayedAttempt(*await self.links.started.get(), self.driver)


@asynccontextmanager
async def a_probe(
    model: str = "",
    nodes: Sequence[str] = ("a", "b"),
    endpoints: tuple[Endpoint, ...] = SERVED,
    seconds_max: float = 60.0,
) -> AsyncIterator[Probing]:
    driver, links = Driver(Metrics()), PlayedLinks()
    driver.connect(links)
    for node in nodes:
        link_node(driver.state, node, "m", now=driver.now(), endpoints=endpoints)
    numbers = iter(range(1, 1000))
    prober = Prober(
        driver,
        Shared(links, driver),
        driver.state.roster,
        lambda size: next(numbers).to_bytes(size, "big"),
        lambda: 1_700_000_000_000,
        seconds_max,
    )
    asked = asyncio.ensure_future(prober("a", model))
    yield Probing(driver, links, prober, asked)
    await asyncio.gather(asked, return_exceptions=True)
    assert driver.open_requests == 0
    assert driver.state.attempts.by_stream == {}


async def test_it_passes_with_the_time_of_its_first_token_once_the_answer_is_whole() -> None:
    async with a_probe() as probing:
        attempt = await probing.attempt()
        assert attempt.node == "a"
        body = orjson.loads(attempt.start.body)
        assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 1, True)
        assert (attempt.start.streaming, attempt.start.tell_ids) == (True, False)
        attempt.say(b"data: role\n\n", tokens=0)
        attempt.say(b"data: yes\n\n")
        assert not probing.asked.done()
        attempt.end()
        probed = await probing.asked
        assert (probed.passed, probed.model, probed.reason) == (True, "m", "")
        assert probed.first_token_ms >= 1


async def test_an_answer_without_a_token_does_not_pass_however_well_it_ends() -> None:
    async with a_probe() as probing:
        attempt = await probing.attempt()
        attempt.say(b"data: role\n\n", tokens=0)
        attempt.end()
        probed = await probing.asked
        assert not probed.passed
        assert "had sent nothing" in probed.reason
        assert (await probing.links.cancelled.get())[0] == attempt.start.stream


async def test_embeddings_pass_with_an_answer_in_one_piece() -> None:
    async with a_probe(endpoints=(Endpoint.EMBEDDINGS,)) as probing:
        attempt = await probing.attempt()
        assert (attempt.start.streaming, orjson.loads(attempt.start.body)["input"]) == (False, "yes")
        attempt.say(b'{"data":[]}', tokens=0)
        attempt.end()
        assert (await probing.asked).passed


@pytest.mark.parametrize("end", ["fail", "lose"])
async def test_a_node_that_fails_is_told_with_what_it_said_and_no_other_is_asked(end: str) -> None:
    async with a_probe() as probing:
        attempt = await probing.attempt()
        if end == "fail":
            attempt.fail("engine_nonsense")
        else:
            attempt.lose()
        probed = await probing.asked
        assert not probed.passed
        assert ("engine_nonsense" if end == "fail" else "the node was lost") in probed.reason
        assert probed.next_action
        assert probing.links.started.empty()


async def test_a_fault_of_the_question_is_told_in_the_engines_words() -> None:
    async with a_probe() as probing:
        (await probing.attempt()).fail("bad_request", Fault.CALLER)
        assert "bad_request" in (await probing.asked).reason


async def test_a_node_that_does_not_take_it_is_told_so() -> None:
    async with a_probe() as probing:
        (await probing.attempt()).reject()
        probed = await probing.asked
        assert (probed.passed, probed.reason.startswith("its own agent did not take the probe")) == (False, True)


async def test_a_node_that_says_nothing_is_given_up_and_told_to_stop() -> None:
    async with a_probe(seconds_max=0.05) as probing:
        attempt = await probing.attempt()
        probed = await probing.asked
        assert (probed.passed, probed.reason) == (False, "no token came within 0.05 s")
        assert (await probing.links.cancelled.get())[0] == attempt.start.stream


async def test_one_node_is_probed_once_at_a_time_and_others_meanwhile() -> None:
    async with a_probe() as probing:
        attempt = await probing.attempt()
        second = await probing.prober("a", "")
        assert (second.passed, second.reason) == (False, "another probe of this node is under way")
        other = asyncio.ensure_future(probing.prober("b", ""))
        its = await probing.attempt()
        assert its.node == "b"
        for each in (attempt, its):
            each.say(b"data: yes\n\n")
            each.end()
        assert (await other).passed
        assert (await probing.asked).passed
        third = asyncio.ensure_future(probing.prober("a", ""))
        again = await probing.attempt()
        again.say(b"data: yes\n\n")
        again.end()
        assert (await third).passed


async def test_a_model_that_the_node_does_not_have_is_not_asked() -> None:
    async with a_probe("mm") as probing:
        assert "does not have 'mm'" in (await probing.asked).reason


async def test_a_stopping_coordinator_ends_it_with_a_word() -> None:
    async with a_probe() as probing:
        await probing.attempt()
        probing.driver.stop_requests()
        probed = await probing.asked
        assert not probed.passed
        assert "is being restarted" in probed.reason
        assert probed.next_action == "Try again in a moment."
