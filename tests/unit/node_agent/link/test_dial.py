"""Dialling, against a coordinator played by hand over real gRPC: how long an agent waits, and where it dials."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shrk_contract.terms import HEARTBEAT_SECONDS
from shrk_contract.v1 import link_pb2, report_pb2
from shrk_contract.v1.refusal_pb2 import REFUSAL_CODE_NODE_SILENT, Refusal
from shrk_node_agent.attempts import AttemptSink, Order
from shrk_node_agent.link.dial import PERMANENT_REFUSAL_SECONDS, Dialler, LinkState
from shrk_node_agent.link.line import _end_call, beat
from shrk_node_agent.link.session import Session, SessionPort
from shrk_node_agent.state.backoff import STEADY_LINK_SECONDS
from shrk_node_agent.state.events import AttemptKey
from support.raw_coordinator import WELCOME, Frame, NodesEnd, RawCoordinator, Welcome, raw_coordinator, unix_ms
from support.states import a_report

CHAT = report_pb2.ENDPOINT_CHAT_COMPLETIONS
#: Jitter: the middle of every span.
FRACTION = 0.5


@dataclass
class Desk:
    """Stands for the rest of the agent. Pauses are written down instead of waited for."""

    pauses_wanted: int
    orders: list[tuple[AttemptKey, Order, AttemptSink]] = field(default_factory=list)
    ordered: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[Session] = field(default_factory=list)
    states: list[LinkState] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    paused: asyncio.Event = field(default_factory=asyncio.Event)

    def order(self, key: AttemptKey, order: Order, sink: AttemptSink) -> None:
        self.orders.append((key, order, sink))
        self.ordered.set()

    async def pause(self, seconds: float) -> None:
        """Go on at once until enough pauses were seen, then never."""
        self.pauses.append(seconds)
        if len(self.pauses) >= self.pauses_wanted:
            self.paused.set()
            await asyncio.Event().wait()


@asynccontextmanager
async def dialling(
    coordinator: RawCoordinator,
    desk: Desk,
    addresses: tuple[str, ...] = (),
    monotonic: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Dialler]:
    dialler = Dialler(
        identity=coordinator.identity,
        addresses=addresses or (coordinator.address,),
        incarnation=1,
        agent_version="test",
        port=SessionPort(desk.order, lambda sink: None, lambda key: None, lambda *words: None),
        report=lambda: a_report("m"),
        lost=desk.lost.append,
        changed=lambda: desk.states.append(dialler.status.state),
        clock=unix_ms,
        monotonic=monotonic,
        fraction=lambda: FRACTION,
        pause=desk.pause,
    )
    task = asyncio.create_task(dialler.run())
    try:
        yield dialler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def pauses_of(
    folder: Path, welcome: Welcome, count: int, monotonic: Callable[[], float] = lambda: 0.0
) -> list[float]:
    """How long an agent pauses after each of its first links."""
    desk = Desk(count)
    async with raw_coordinator(folder, welcome) as coordinator, dialling(coordinator, desk, monotonic=monotonic):
        await desk.paused.wait()
        assert coordinator.links == count
    return desk.pauses


async def welcome_and_drop(node: NodesEnd) -> None:
    await node.send(WELCOME)


def refusing(**fields: object) -> Welcome:
    """A coordinator that refuses every link."""

    async def refuse(node: NodesEnd) -> None:
        await node.send(Frame(refusal=Refusal(message="No.", remedy="Wait.", **fields)))  # type: ignore[arg-type]  # fields of any kind

    return refuse


async def test_a_link_that_flaps_is_dialled_later_and_later(tmp_path: Path) -> None:
    assert await pauses_of(tmp_path, welcome_and_drop, 5) == [0, 0.25, 0.5, 1, 2]


async def test_a_link_that_lived_is_dialled_again_at_once_every_time(tmp_path: Path) -> None:
    clock = itertools.count(0.0, STEADY_LINK_SECONDS)
    assert await pauses_of(tmp_path, welcome_and_drop, 4, lambda: next(clock)) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("refusal", "pause"),
    [
        ({"retry_after_ms": 5000}, 7.5),
        ({"retry_after_ms": 0}, 1.5),
        ({"permanent": True}, PERMANENT_REFUSAL_SECONDS),
    ],
)
async def test_a_refusal_is_never_answered_without_a_pause(
    tmp_path: Path, refusal: dict[str, object], pause: float
) -> None:
    assert await pauses_of(tmp_path, refusing(**refusal), 2) == [pause, pause]


async def test_a_refusal_after_the_welcome_is_heard_whatever_the_agent_was_about_to_say(tmp_path: Path) -> None:
    async def welcome(node: NodesEnd) -> None:
        await node.send(WELCOME)
        await refusing(retry_after_ms=2000)(node)

    assert await pauses_of(tmp_path, welcome, 10) == [3.0] * 10


async def welcome_and_miss(node: NodesEnd) -> None:
    """A coordinator that hears nothing from a node which it has welcomed."""
    await node.send(WELCOME)
    await refusing(code=REFUSAL_CODE_NODE_SILENT)(node)


async def test_a_node_that_was_not_heard_for_a_while_dials_again_as_after_any_lost_link(tmp_path: Path) -> None:
    clock = itertools.count(0.0, STEADY_LINK_SECONDS)
    assert await pauses_of(tmp_path, welcome_and_miss, 4, lambda: next(clock)) == [0, 0, 0, 0]


async def test_a_coordinator_that_never_hears_its_nodes_is_dialled_later_and_later(tmp_path: Path) -> None:
    assert await pauses_of(tmp_path, welcome_and_miss, 4) == [0, 0.25, 0.5, 1]


async def test_a_node_that_was_not_heard_was_not_refused(tmp_path: Path) -> None:
    desk = Desk(1)
    async with raw_coordinator(tmp_path, welcome_and_miss) as coordinator, dialling(coordinator, desk) as dialler:
        await desk.paused.wait()
        assert (dialler.status.state, dialler.status.reason) == (LinkState.CONNECTING, "No. Wait.")


async def test_a_refusal_is_said_to_people_in_its_own_words(tmp_path: Path) -> None:
    desk = Desk(1)
    async with raw_coordinator(tmp_path, refusing()) as coordinator, dialling(coordinator, desk) as dialler:
        await desk.paused.wait()
        assert (dialler.status.state, dialler.status.reason) == (LinkState.REFUSED, "No. Wait.")


async def test_an_address_where_nobody_answers_gives_way_to_the_next_and_a_good_one_is_kept(tmp_path: Path) -> None:
    desk = Desk(3)
    clock = itertools.count(0.0, STEADY_LINK_SECONDS)
    async with raw_coordinator(tmp_path, welcome_and_drop) as coordinator:
        addresses = ("tcp://127.0.0.1:1", coordinator.address)
        async with dialling(coordinator, desk, addresses, lambda: next(clock)) as dialler:
            await desk.paused.wait()
            assert dialler.status.links == 2
            assert coordinator.links == 2


async def test_what_comes_in_one_batch_with_the_welcome_is_acted_on(tmp_path: Path) -> None:
    async def welcome(node: NodesEnd) -> None:
        start = link_pb2.Start(stream=7, endpoint=CHAT, model="m", body_bytes=2, body=b"{}")
        await node.send(WELCOME, Frame(start=start))
        await node.frames()  # the link stays open until the node says something

    desk = Desk(1)
    async with raw_coordinator(tmp_path, welcome) as coordinator, dialling(coordinator, desk):
        await desk.ordered.wait()
    [(key, order, _)] = desk.orders
    assert (key[1], order.model) == (7, "m")


#: A request that goes on for longer than it said.
TOO_LONG = (Frame(start=link_pb2.Start(body_bytes=1)), Frame(body=link_pb2.Body(data=b"{}")))


@pytest.mark.parametrize("frames", [(), (Frame(),), (WELCOME, *TOO_LONG)], ids=["none", "no", "too long"])
async def test_a_first_batch_that_breaks_the_contract_ends_the_link_and_leaves_no_session(
    tmp_path: Path, frames: tuple[Frame, ...]
) -> None:
    desk = Desk(1)

    async def welcome(node: NodesEnd) -> None:
        await node.send(*frames)
        await asyncio.Event().wait()

    async with raw_coordinator(tmp_path, welcome) as coordinator, dialling(coordinator, desk) as dialler:
        await desk.paused.wait()
        assert dialler.session is None
        assert len(desk.lost) == dialler.status.links
        assert desk.states[-1] is LinkState.CONNECTING


class _NeverEnding:
    """A call that takes no notice of being cancelled."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def cancel(self) -> bool:
        return True

    async def code(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_an_agent_that_stops_while_a_call_ends_is_not_made_to_dial_again() -> None:
    call = _NeverEnding()
    ending = asyncio.create_task(_end_call(call))
    await call.asked.wait()
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert ending.cancelled()


async def test_a_dialler_can_be_stopped_while_its_link_is_up(tmp_path: Path) -> None:
    up = asyncio.Event()

    async def welcome(node: NodesEnd) -> None:
        await node.send(WELCOME)
        await node.frames()  # its first report
        up.set()
        await asyncio.Event().wait()

    desk = Desk(1)
    async with raw_coordinator(tmp_path, welcome) as coordinator:
        async with dialling(coordinator, desk):
            await up.wait()
        assert (len(desk.lost), desk.pauses) == (1, [])


async def test_a_node_that_is_busy_and_silent_sends_empty_batches(tmp_path: Path) -> None:
    said = asyncio.Queue[list[link_pb2.NodeFrame]]()

    async def welcome(node: NodesEnd) -> None:
        start = link_pb2.Start(stream=7, endpoint=CHAT, model="m", body_bytes=2, body=b"{}")
        await node.send(WELCOME, Frame(start=start))
        await node.frames()  # its first report
        while True:
            said.put_nowait(await node.frames())

    desk = Desk(1)
    async with raw_coordinator(tmp_path, welcome) as coordinator, dialling(coordinator, desk, monotonic=time.monotonic):
        assert [await said.get(), await said.get()] == [[], []]
        assert (len(desk.orders), coordinator.links) == (1, 1)


class _Over(Exception):
    """A minute has passed."""


async def beats_of_a_minute(busy: Callable[[float], bool], sends_every: float) -> list[float]:
    """When a link beats, in played time; something else is sent again and again."""
    now, sent, beats = 0.0, 0.0, []

    def silence() -> float:
        nonlocal sent
        while sent + sends_every <= now:
            sent += sends_every
        return now - max([sent, *beats[-1:]])

    async def pause(seconds: float) -> None:
        nonlocal now
        assert seconds > 0
        now += seconds
        if now >= 60:
            raise _Over

    with pytest.raises(_Over):
        await beat(lambda: busy(now), silence, lambda: beats.append(now), pause)
    return beats


async def test_a_busy_link_that_says_nothing_else_beats_once_in_a_heartbeat() -> None:
    beats = await beats_of_a_minute(lambda now: True, sends_every=1e9)
    assert beats == [HEARTBEAT_SECONDS * n for n in range(1, 60)]


async def test_a_busy_link_that_says_enough_does_not_beat() -> None:
    assert await beats_of_a_minute(lambda now: True, sends_every=0.75 * HEARTBEAT_SECONDS) == []


async def test_a_busy_link_that_says_little_beats_in_between_and_is_never_silent_for_longer() -> None:
    every = 2.5 * HEARTBEAT_SECONDS
    beats = await beats_of_a_minute(lambda now: True, sends_every=every)
    said = sorted([*beats, *(every * n for n in range(int(60 / every)))])
    assert max(later - earlier for earlier, later in itertools.pairwise(said)) <= HEARTBEAT_SECONDS


async def test_an_idle_link_does_not_beat_and_begins_when_it_has_work() -> None:
    beats = await beats_of_a_minute(lambda now: now >= 30.5, sends_every=1e9)
    assert beats[0] == 31
