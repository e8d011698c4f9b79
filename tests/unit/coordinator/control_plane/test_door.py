"""The door after admission: links of revoked nodes are cut, whatever the database does in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shrk_contract.v1 import link_pb2
from shrk_contract.v1.refusal_pb2 import (
    REFUSAL_CODE_CERTIFICATE_REVOKED,
    REFUSAL_CODE_COORDINATOR_TROUBLED,
    REFUSAL_CODE_NODE_UNKNOWN,
    Refusal,
)
from shrk_coordinator.control_plane.authority import Authority
from shrk_coordinator.control_plane.door import LOOKUPS_MAX, Door
from shrk_coordinator.control_plane.links import Link, Links
from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.state.events import Event
from shrk_coordinator.store.store import Store
from support.certificates import csr_for, p256

NOW = 1_795_176_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path}/state/coordinator.db")
    yield opened
    await opened.close()


class Watched:
    """A door that looks all the time, the links it looks at, and its looks, counted."""

    def __init__(self, store: Store) -> None:
        self.links = Links(b"boot", [])
        self.looks = 0
        #: What the next looks raise, before the database answers again.
        self.failures: list[DatabaseError] = []
        self._store = store
        self._news = asyncio.Event()

    async def revoked_after(self, last: int) -> tuple[int, list[str]]:
        """The store's answer, or a failure."""
        self.looks += 1
        self._news.set()
        if self.failures:
            raise self.failures.pop()
        return await self._store.revoked_after(last)

    def link(self, node_id: str, serial: str = "00") -> Link:
        """A link that has said hello."""

        async def write(frames: list[link_pb2.CoordinatorFrame]) -> None:
            raise AssertionError(f"nothing is written here: {frames}")

        def post(event: Event) -> None:
            raise AssertionError(f"nothing is posted here: {event}")

        link = Link(self.links.new_id(), node_id, serial, [], post, lambda: 0.0, write, self._refused)
        self.links.add(link)
        return link

    def _refused(self, link: Link) -> None:
        self.links.remove(link)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for looks and cuts."""
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def two_more_looks(self) -> None:
        """The first may have begun before what the test did; the second has not."""
        seen = self.looks
        await self.until(lambda: self.looks >= seen + 2)


@asynccontextmanager
async def a_watch(store: Store) -> AsyncIterator[Watched]:
    """A door that has looked at least once."""
    watched = Watched(store)
    door = Door(store.admission, watched.revoked_after, lambda: NOW)
    watching = asyncio.create_task(door.watch(watched.links, look_seconds=0.0))
    try:
        await watched.two_more_looks()
        yield watched
        assert not watching.done(), "the watch goes on"
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


Revoke = Callable[[Store], Awaitable[None]]


@pytest.mark.parametrize(
    "revoke",
    [lambda store: store.revoke_node("node_1", "lost", NOW), lambda store: store.revoke_serial("ff", "leaked", NOW)],
    ids=["node", "serial"],
)
async def test_a_revoked_link_is_cut_with_a_word_and_others_stay(store: Store, revoke: Revoke) -> None:
    async with a_watch(store) as watched:
        revoked, other = watched.link("node_1", "ff"), watched.link("node_2", "ee")
        await revoke(store)
        await watched.until(lambda: revoked.refusal is not None)
        assert revoked.refusal is not None
        assert revoked.refusal.code == REFUSAL_CODE_CERTIFICATE_REVOKED
        assert other.refusal is None


async def test_a_revocation_that_waited_for_the_database_is_not_missed(store: Store) -> None:
    async with a_watch(store) as watched:
        link = watched.link("node_1")
        await store.revoke_node("node_1", "lost", now=NOW - 60_000)
        await watched.until(lambda: link.refusal is not None)


async def test_a_node_that_says_hello_after_its_revocation_was_read_is_cut(store: Store) -> None:
    async with a_watch(store) as watched:
        await store.revoke_node("node_1", "lost", NOW)
        await watched.two_more_looks()
        link = watched.link("node_1")
        await watched.until(lambda: link.refusal is not None)


async def test_a_node_that_was_restored_stays_and_can_be_revoked_again(store: Store) -> None:
    async with a_watch(store) as watched:
        await store.revoke_node("node_1", "by mistake", NOW)
        await watched.two_more_looks()
        assert await store.restore_node("node_1")
        link = watched.link("node_1")
        await watched.two_more_looks()
        assert link.refusal is None
        await store.revoke_node("node_1", "after all", NOW)
        await watched.until(lambda: link.refusal is not None)
        assert link.refusal is not None
        assert link.refusal.message == "The operator of this coordinator revoked node_1: after all."


async def test_a_database_that_fails_for_a_while_does_not_end_the_watch(store: Store) -> None:
    async with a_watch(store) as watched:
        link = watched.link("node_1")
        watched.failures = [DatabaseError("the disk is full")] * 3
        await store.revoke_node("node_1", "lost", NOW)
        await watched.until(lambda: link.refusal is not None)
        assert not watched.failures


async def none_revoked(last: int) -> tuple[int, list[str]]:
    """Nobody ever is."""
    return last, []


class Caller:
    """A call from a certified node."""

    def __init__(self, folder: Path) -> None:
        self._pem = Authority.open(folder, lambda: NOW).sign_node(csr_for(p256()), "node_a", NOW).pem

    def auth_context(self) -> dict[str, list[bytes]]:
        """What gRPC tells of its connection."""
        return {"x509_pem_cert": [self._pem.encode()]}


async def test_while_the_database_fails_nodes_are_told_to_come_back(tmp_path: Path) -> None:
    async def fails(*asked: object) -> tuple[None, None]:
        raise DatabaseError("disk on fire in /secret/path")

    answer = await Door(fails, none_revoked, lambda: NOW).admit(Caller(tmp_path))
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.permanent) == (REFUSAL_CODE_COORDINATOR_TROUBLED, False)
    assert answer.retry_after_ms > 0
    assert "secret" not in str(answer)


async def test_a_whole_fleet_that_knocks_is_looked_up_a_few_at_a_time(tmp_path: Path) -> None:
    under_way, most = 0, 0
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def look_up(*asked: str) -> tuple[None, None]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        busy.set()
        await go_on.wait()
        under_way -= 1
        return None, None

    door, caller = Door(look_up, none_revoked, lambda: NOW), Caller(tmp_path)
    knocking = [asyncio.create_task(door.admit(caller)) for _ in range(20)]
    await busy.wait()
    await asyncio.sleep(0)  # All have knocked by now.
    go_on.set()
    answers = await asyncio.gather(*knocking)
    assert most == LOOKUPS_MAX
    assert all(isinstance(answer, Refusal) and answer.code == REFUSAL_CODE_NODE_UNKNOWN for answer in answers)


async def test_who_leaves_while_it_waits_makes_room_for_the_next(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def look_up(*asked: str) -> tuple[None, None]:
        await go_on.wait()
        return None, None

    door, caller = Door(look_up, none_revoked, lambda: NOW), Caller(tmp_path)
    inside = [asyncio.create_task(door.admit(caller)) for _ in range(LOOKUPS_MAX)]
    leaves, stays = asyncio.create_task(door.admit(caller)), asyncio.create_task(door.admit(caller))
    await asyncio.sleep(0)
    leaves.cancel()
    go_on.set()
    await asyncio.gather(*inside, stays)
    assert leaves.cancelled()
