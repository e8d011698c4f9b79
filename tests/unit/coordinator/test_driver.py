"""The driver: effects in order, and no surprise in one of them costs the others."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.testing import capture_logs

from shrk_contract.v1 import link_pb2
from shrk_coordinator.driver import Driver
from shrk_coordinator.state import effects as do
from shrk_coordinator.state import events as seen
from shrk_coordinator.streams import AttemptSink
from support.front import PlayedLinks
from support.states import CHAT, link_node


class Request:
    """A caller's request that notes what it is told."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.begun = 0
        self.breaks_at = breaks_at
        self.told: list[object] = []

    def begin(self, effect: do.StartAttempt) -> Sequence[link_pb2.CoordinatorFrame]:
        self.begun += 1
        if self.begun == self.breaks_at:
            raise RuntimeError("planted")
        return [link_pb2.CoordinatorFrame(start=link_pb2.Start(stream=effect.stream))]

    def sink(self) -> AttemptSink:
        raise NotImplementedError

    def refused(self, effect: do.RefuseRequest) -> None:
        self.told.append(effect)

    def failed(self, effect: do.FailRequest) -> None:
        self.told.append(effect)


class Noting(Request):
    """The same with a sink of which nothing is asked."""

    def sink(self) -> AttemptSink:
        return None  # type: ignore[return-value]  # PlayedLinks only keeps it


def a_driver(*nodes: str) -> tuple[Driver, PlayedLinks, dict[str, int]]:
    driver, links = Driver(), PlayedLinks()
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
