"""A streamed relay without a server around it: what it writes, when, and for whom it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shrk_contract.terms import CREDIT_BYTES, PART_BYTES_MAX, Endpoint, Fault, ResumeMethod
from shrk_contract.v1 import link_pb2
from shrk_coordinator.data_plane.dialects import DIALECTS
from shrk_coordinator.data_plane.dialects.dialect import Envelope
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Shared
from shrk_coordinator.data_plane.streamed import StreamedRelay
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import FailureDetail
from shrk_coordinator.state.stall import STALL_SECONDS_MAX
from support.front import PlayedAttempt, PlayedLinks, chunk


class PlayedPipe:
    """An open response, as a relay uses it; its caller reads, or does not."""

    def __init__(self) -> None:
        self.written = b""
        self.wrote = asyncio.Event()
        self.paused = False

    def send(self, parts: Sequence[bytes]) -> int:
        """Write at once."""
        self.written += b"".join(parts)
        self.wrote.set()
        return sum(map(len, parts))

    async def drained(self) -> None:
        """The caller has read enough."""
        assert not self.paused


def a_relay() -> tuple[StreamedRelay, Driver, PlayedLinks]:
    driver, links = Driver(Metrics()), PlayedLinks()
    driver.connect(links)
    envelope = Envelope("the-id", 1234, "m")
    call = Call(b"\x01" * 16, DIALECTS[Endpoint.CHAT_COMPLETIONS], envelope, b"{}", True, False)
    return StreamedRelay(call, Shared(links, driver)), driver, links


def begin(relay: StreamedRelay, driver: Driver, stream: int = 1, resume: ResumeMethod | None = None) -> PlayedAttempt:
    frames = relay.begin(do.StartAttempt(b"\x01" * 16, stream, stream, "node", 1, resume, "node_lost"))
    return PlayedAttempt(frames, relay.sink(stream), driver)


async def test_what_comes_after_the_response_was_ended_is_not_written_into_it() -> None:
    relay, driver, _ = a_relay()
    attempt, pipe = begin(relay, driver), PlayedPipe()
    attempt.say(chunk("said"))
    pumping = asyncio.ensure_future(relay.pump(pipe))  # type: ignore[arg-type]  # it uses no more of a pipe
    await pipe.wrote.wait()
    attempt.say(chunk("too late"))
    pumping.cancel()
    await asyncio.gather(pumping, return_exceptions=True)
    pipe.written = b""
    attempt.say(chunk("even later"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert pipe.written == b""


async def test_all_pieces_of_one_tick_leave_in_one_write() -> None:
    relay, driver, _ = a_relay()
    attempt, pipe = begin(relay, driver), PlayedPipe()
    attempt.say(chunk("a"))
    pumping = asyncio.ensure_future(relay.pump(pipe))  # type: ignore[arg-type]  # it uses no more of a pipe
    await pipe.wrote.wait()
    for text in ("b", "c", "d"):
        attempt.say(chunk(text))
    assert pipe.written == chunk("a")
    await asyncio.sleep(0)
    assert pipe.written == b"".join(map(chunk, "abcd"))
    attempt.end()
    await pumping
    assert pipe.written.endswith(b"data: [DONE]\n\n")


async def test_a_node_that_waits_for_credit_has_not_stalled() -> None:
    relay, driver, _ = a_relay()
    attempt = begin(relay, driver)
    attempt.say(chunk("x"))
    now = driver.now()
    assert relay.stalled(now + 100) == 1
    filler = b"x" * PART_BYTES_MAX
    for _ in range(CREDIT_BYTES // PART_BYTES_MAX - 1):
        attempt.say(filler)
    assert relay.stalled(now + 200) is None
    assert relay.stalled(now + 201) is None


async def test_a_caller_that_does_not_take_what_is_written_stalls_no_stream() -> None:
    relay, driver, _ = a_relay()
    attempt, pipe = begin(relay, driver), PlayedPipe()
    attempt.say(chunk("x"))
    pumping = asyncio.ensure_future(relay.pump(pipe))  # type: ignore[arg-type]  # it uses no more of a pipe
    await pipe.wrote.wait()
    now = driver.now()
    pipe.paused = True
    assert relay.stalled(now + 100) is None
    pipe.paused = False
    # The time in which it took nothing does not count.
    assert relay.stalled(now + 100 + STALL_SECONDS_MAX - 0.1) is None
    assert relay.stalled(now + 100 + STALL_SECONDS_MAX + 0.1) == 1
    pumping.cancel()
    await asyncio.gather(pumping, return_exceptions=True)


async def test_the_next_node_gets_credit_only_for_what_the_caller_has_room_for() -> None:
    relay, driver, links = a_relay()
    first = begin(relay, driver)
    first.say(b"x" * PART_BYTES_MAX)
    first.say(b"x" * PART_BYTES_MAX)
    second = begin(relay, driver, 2, ResumeMethod.REPLAY)
    assert (first.start.credit_bytes, second.start.credit_bytes) == (CREDIT_BYTES, CREDIT_BYTES - 2 * PART_BYTES_MAX)
    pumping = asyncio.ensure_future(relay.pump(pipe := PlayedPipe()))  # type: ignore[arg-type]  # it uses no more of it
    await pipe.wrote.wait()
    # Now that it has read on, the rest follows.
    assert links.credit_given == {2: 2 * PART_BYTES_MAX}
    pumping.cancel()
    await asyncio.gather(pumping, return_exceptions=True)


async def test_a_failure_is_that_of_a_lost_stream_only_where_something_was_said() -> None:
    failed = do.FailRequest(b"\x01" * 16, FailureDetail(Fault.NODE, "it was lost", code="node_lost"), 1)
    for says, code in ((False, "node_lost"), (True, "stream_lost")):
        relay, driver, _ = a_relay()
        attempt = begin(relay, driver)
        attempt.say(b"data: half", tokens=0, more=True)
        if says:
            attempt.say(b" an event\n\n")
        relay.failed(failed)
        assert relay.error is not None
        assert (relay.error.code, relay.error.status) == (code, 502)


async def test_an_answer_without_any_token_is_completed_with_its_reason() -> None:
    relay, driver, _ = a_relay()
    attempt = begin(relay, driver)
    attempt.say_last(chunk(""), tokens=0)
    relay.completed()
    pipe = PlayedPipe()
    await relay.pump(pipe)  # type: ignore[arg-type]  # it uses no more of a pipe
    assert b'"finish_reason":"stop"' in pipe.written
    assert pipe.written.endswith(b"data: [DONE]\n\n")


async def test_an_ended_answer_hears_nothing_more() -> None:
    relay, driver, _ = a_relay()
    attempt = begin(relay, driver)
    attempt.say(chunk("x"))
    attempt.end()
    pending = list(relay._pending)
    attempt.say(chunk("y"))
    attempt.end()
    attempt.sink.prompt(link_pb2.Prompt(stream=1, token_ids=[1]))
    assert relay._pending == pending
    assert relay.stalled(driver.now() + 1000) is None


async def test_the_parts_of_a_long_event_are_signs_of_life() -> None:
    relay, driver, _ = a_relay()
    attempt = begin(relay, driver)
    now = 1000.0
    driver.now = lambda: now  # type: ignore[method-assign]  # a test's own clock
    attempt.say(chunk("x"))
    for _ in range(3):
        now += STALL_SECONDS_MAX - 0.1
        assert relay.stalled(now) is None
        attempt.say(b"data: ", tokens=0, more=True)
    assert relay.stalled(now + STALL_SECONDS_MAX - 0.1) is None
    assert relay.stalled(now + STALL_SECONDS_MAX + 0.1) == 1
