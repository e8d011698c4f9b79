"""The driver: effects in order, and no surprise in one of them costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs

from shrk_contract.v1 import link_pb2
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.state.events import StreamId
from shrk_coordinator.streams import AttemptSink
from support.front import PlayedLinks
from support.states import CHAT, a_report, link_node, new_link


class Request:
    """A caller's request that notes what it is told."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.begun = 0
        self.breaks_at = breaks_at
        self.told: list[object] = []
        self.stalls: StreamId | None = None

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        self.begun += 1
        if self.begun == self.breaks_at:
            raise RuntimeError("planted")
        return [link_pb2.CoordinatorFrame(start=link_pb2.Start(stream=effect.stream))]

    def sink(self, stream: int) -> AttemptSink:
        raise NotImplementedError

    def refused(self, effect: do.RefuseRequest) -> None:
        self.told.append(effect)

    def failed(self, effect: do.FailRequest) -> None:
        self.told.append(effect)

    def completed(self) -> None:
        self.told.append("completed")

    def stopped(self) -> None:
        self.told.append("stopped")

    def stalled(self, now: float) -> StreamId | None:
        return self.stalls


class Noting(Request):
    """The same with a sink of which nothing is asked."""

    def sink(self, stream: int) -> AttemptSink:
        return None  # type: ignore[return-value]  # PlayedLinks only keeps it


def a_driver(*nodes: str) -> tuple[Driver, PlayedLinks, dict[str, int]]:
    driver, links = Driver(Metrics()), PlayedLinks()
    driver.connect(links)
    return driver, links, {node: link_node(driver.state, node, "m", now=driver.now()) for node in nodes}


def ask(driver: Driver, request: Request, number: int) -> bytes:
    request_id = number.to_bytes(16, "big")
    driver.open(request, seen.RequestArrived(driver.now(), request_id, "m", CHAT, streaming=True))
    return request_id


async def test_a_surprise_in_one_request_does_not_cost_the_others_of_a_lost_node() -> None:
    driver, _, linked = a_driver("a")
    broken, whole = Noting(breaks_at=2), Noting()
    ask(driver, broken, 1)
    ask(driver, whole, 2)
    linked["b"] = link_node(driver.state, "b", "m", now=driver.now())
    with capture_logs() as logs:
        driver.post(seen.LinkClosed(driver.now(), "a", linked["a"], "cut"))
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["an effect failed"]
    assert whole.begun == 2
    # The one that surprised us was told that it failed: its caller does not wait for ever.
    [told] = broken.told
    assert isinstance(told, do.FailRequest)


async def test_a_request_that_ended_is_told_nothing_more() -> None:
    driver, links, _ = a_driver("a")
    request = Noting()
    request_id = ask(driver, request, 1)
    driver.close(request_id)
    assert links.cancelled.get_nowait()[1] == "the caller left"
    assert request.told == []
    await driver.idle()


async def test_a_request_whose_last_token_came_is_completed_when_its_node_is_lost() -> None:
    driver, _, linked = a_driver("a")
    request = Noting()
    ask(driver, request, 1)
    [stream] = driver.state.attempts.by_stream
    driver.first_piece(stream, 0)
    driver.last_token(stream, 1)
    driver.post(seen.LinkClosed(driver.now(), "a", linked["a"], "cut"))
    assert request.told == ["completed"]


async def test_a_request_that_stalls_is_found_by_the_next_tick_and_goes_on_elsewhere() -> None:
    driver, links, _ = a_driver("a")
    request, other = Noting(), Noting()
    ask(driver, request, 1)
    ask(driver, other, 2)
    first, second = driver.state.attempts.by_stream
    for stream in (first, second):
        driver.first_piece(stream, 0)
    link_node(driver.state, "b", "m", now=driver.now())
    request.stalls = first
    ticking = asyncio.ensure_future(driver.run())
    assert (await links.cancelled.get())[0] == first
    ticking.cancel()
    assert (request.begun, other.begun) == (2, 1)


async def test_a_link_that_turns_out_to_be_gone_is_a_loss_that_is_waited_over() -> None:
    driver, links, _ = a_driver("a")
    links.gone = True
    request = Noting()
    request_id = ask(driver, request, 1)
    assert request_id in driver.state.attempts.waiting
    links.gone = False
    link, now = new_link(), driver.now()
    driver.post(seen.NodeHello(now, "a", link, 1, owner="o"))
    driver.post(seen.NodeReported(now, "a", link, a_report("m")))
    assert request.begun == 2
    assert request.told == []


async def test_an_attempt_whose_request_left_meanwhile_is_not_begun() -> None:
    driver, links, linked = a_driver("a")
    leaving, staying = Noting(), Noting()
    leaving_id = ask(driver, leaving, 1)
    ask(driver, staying, 2)
    # As when a caller's connection breaks while its node's loss is dealt with.
    del driver._requests[leaving_id]
    link_node(driver.state, "b", "m", now=driver.now())
    driver.post(seen.LinkClosed(driver.now(), "a", linked["a"], "cut"))
    assert (leaving.begun, staying.begun) == (1, 2)
    assert links.cancelled.get_nowait()[1] == "the caller left"
    assert leaving_id not in driver.state.attempts.requests


def test_each_assignment_that_is_sent_is_logged_once() -> None:
    driver = Driver(Metrics())
    driver.connect(PlayedLinks())
    link_node(driver.state, "a", "m", "n", now=driver.now())
    with capture_logs() as logs:
        driver.post(seen.Reconcile(driver.now()))
        driver.post(seen.Reconcile(driver.now()))
    [line] = [line for line in logs if line["event"] == "models assigned"]
    assert (line["node"], line["models"], line["log_level"]) == ("a", ["m", "n"], "info")
