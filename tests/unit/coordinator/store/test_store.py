"""The store: members, tokens, revocations and keys outlive the process, and each change is whole."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import ApiKey, NewNode, Node, Scope, TokenProblem, Visibility
from shrk_coordinator.store.sqlite import POOL_SIZE, migrate, open_engine
from shrk_coordinator.store.store import Store
from shrk_coordinator.store.tables import metadata

DIGEST = b"t" * 32


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(url(tmp_path))
    yield opened
    await opened.close()


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/state/coordinator.db"


def database_file(folder: Path) -> Path:
    return folder / "state" / "coordinator.db"


def machine(number: int = 1, key: bytes | None = None) -> NewNode:
    return NewNode(f"node_{number}", "rig", "0.1.0", key or bytes([number]) * 32)


def key(key_id: str, scope: Scope = Scope.CALLER) -> ApiKey:
    return ApiKey(key_id, key_id.encode() * 4, f"name of {key_id}", scope, created_at=5)


async def invite(store: Store, digest: bytes = DIGEST, owner: str = "ann", expires_at: int = 100) -> None:
    await store.create_join_tokens(
        [(owner, digest)],
        owner_ids={owner: f"owner_{owner}"},
        visibility=Visibility.PUBLIC,
        labels={"room": "cellar"},
        now=10,
        expires_at=expires_at,
    )


async def test_a_token_gives_its_owner_visibility_and_labels_to_the_node(store: Store) -> None:
    await invite(store)
    node = await store.redeem_join_token(DIGEST, machine(), now=20)
    assert node == Node(
        id="node_1",
        owner_id="owner_ann",
        owner_name="ann",
        visibility=Visibility.PUBLIC,
        host_name="rig",
        agent_version="0.1.0",
        public_key_sha256=bytes([1]) * 32,
        created_at=20,
        labels={"room": "cellar"},
    )
    assert await store.node("node_1") == node
    assert await store.nodes() == [node]
    (token,) = await store.join_tokens()
    assert (token.used_at, token.used_by, token.owner_name) == (20, "node_1", "ann")


async def test_an_unknown_a_used_and_an_expired_token_admit_nobody(store: Store) -> None:
    assert await store.redeem_join_token(DIGEST, machine(), now=20) is TokenProblem.UNKNOWN
    await invite(store)
    assert await store.redeem_join_token(DIGEST, machine(), now=100) is TokenProblem.EXPIRED
    assert isinstance(await store.redeem_join_token(DIGEST, machine(1), now=99), Node)
    assert await store.redeem_join_token(DIGEST, machine(2), now=99) is TokenProblem.USED
    assert [node.id for node in await store.nodes()] == ["node_1"]


async def test_of_two_processes_with_one_token_exactly_one_wins(store: Store, tmp_path: Path) -> None:
    await invite(store)
    other = await Store.open(url(tmp_path))
    try:
        asked = [(store, other)[n % 2].redeem_join_token(DIGEST, machine(n), now=20) for n in range(12)]
        outcomes = await asyncio.gather(*asked)
    finally:
        await other.close()
    winners = [outcome for outcome in outcomes if isinstance(outcome, Node)]
    assert len(winners) == 1
    assert outcomes.count(TokenProblem.USED) == 11
    assert await store.nodes() == winners


async def test_a_machine_that_lost_the_answer_gets_the_same_node_until_the_token_expires(store: Store) -> None:
    await invite(store)
    first = await store.redeem_join_token(DIGEST, machine(1, key=b"k"), now=20)
    assert await store.redeem_join_token(DIGEST, machine(2, key=b"k"), now=30) == first
    assert await store.redeem_join_token(DIGEST, machine(3, key=b"k"), now=100) is TokenProblem.USED


async def test_an_owner_is_made_once(store: Store) -> None:
    await invite(store, b"1" * 32)
    await invite(store, b"2" * 32)
    assert [(owner.id, owner.name) for owner in await store.owners()] == [("owner_ann", "ann")]


async def test_tokens_of_one_call_are_all_made_or_none(store: Store) -> None:
    with pytest.raises(Exception, match="UNIQUE"):
        await store.create_join_tokens(
            [("ann", DIGEST), ("bob", DIGEST)],
            owner_ids={"ann": "owner_ann", "bob": "owner_bob"},
            visibility=Visibility.PRIVATE,
            labels={},
            now=1,
            expires_at=2,
        )
    assert await store.join_tokens() == []
    assert await store.owners() == []


async def test_a_revoked_node_or_serial_is_found_and_the_first_reason_stays(store: Store) -> None:
    await store.revoke_node("node_1", "stolen", now=5)
    await store.revoke_node("node_1", "again", now=6)
    await store.revoke_serial("ff", "leaked", now=7)
    assert await store.revocation("node_1", "00") == "stolen"
    assert await store.revocation("node_2", "ff") == "leaked"
    assert await store.revocation("node_2", "00") is None
    assert await store.revocation("ff", "node_1") is None
    assert await store.admission("node_2", "ff") == (await store.node("node_2"), "leaked")
    assert await store.admission("node_9", "00") == (None, None)


async def test_revocations_are_read_on_from_where_reading_stopped_whatever_moment_they_carry(store: Store) -> None:
    assert await store.revoked_after(0) == (0, [])
    await store.revoke_node("node_1", "stolen", now=500)
    first, subjects = await store.revoked_after(0)
    assert subjects == ["node_1"]
    await store.revoke_serial("ff", "leaked", now=7)
    second, subjects = await store.revoked_after(first)
    assert subjects == ["ff"]
    assert await store.revoked_after(second) == (second, [])
    assert (await store.revoked_after(0))[1] == ["node_1", "ff"]


async def test_a_removed_revocation_does_not_hide_the_next_one(store: Store, tmp_path: Path) -> None:
    await store.revoke_node("node_1", "by mistake", now=5)
    last, _ = await store.revoked_after(0)
    with closing(sqlite3.connect(database_file(tmp_path))) as database:
        database.execute("DELETE FROM revocations")
        database.commit()
    await store.revoke_node("node_2", "stolen", now=6)
    assert (await store.revoked_after(last))[1] == ["node_2"]


async def test_unknown_used_and_expired_tokens_are_refused_while_another_tool_writes(
    store: Store, tmp_path: Path
) -> None:
    await invite(store)
    await store.redeem_join_token(DIGEST, machine(1), now=20)
    await invite(store, b"old" * 8, expires_at=15)
    with closing(sqlite3.connect(database_file(tmp_path))) as database:
        database.execute("BEGIN IMMEDIATE")
        assert await store.redeem_join_token(b"?" * 32, machine(2), now=20) is TokenProblem.UNKNOWN
        assert await store.redeem_join_token(DIGEST, machine(2), now=20) is TokenProblem.USED
        assert await store.redeem_join_token(b"old" * 8, machine(2), now=20) is TokenProblem.EXPIRED
        again = await store.redeem_join_token(DIGEST, machine(1), now=20)
        assert isinstance(again, Node)


async def test_writers_wait_in_line_and_leave_the_connections_to_readers(store: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database_file(tmp_path))) as database:
        database.execute("BEGIN IMMEDIATE")
        writers = [asyncio.create_task(store.add_key(key(f"k{n}"))) for n in range(2 * POOL_SIZE)]
        assert await asyncio.gather(*(store.key("k0") for _ in range(10))) == [None] * 10
        assert not any(writer.done() for writer in writers)
        database.rollback()
    await asyncio.gather(*writers)
    assert len(await store.keys()) == len(writers)


async def test_a_database_without_a_free_connection_is_a_database_error(tmp_path: Path) -> None:
    opened = await Store.open(url(tmp_path), turn_seconds=0.01)
    async with AsyncExitStack() as busy:
        for _ in range(POOL_SIZE):
            await busy.enter_async_context(opened._reading())
        with pytest.raises(DatabaseError, match="all its connections were in use"):
            await opened.key("a")
    await opened.close()


async def test_a_write_that_does_not_get_its_turn_is_a_database_error(tmp_path: Path) -> None:
    opened = await Store.open(url(tmp_path), turn_seconds=0.01)
    async with opened._writing():
        with pytest.raises(DatabaseError, match="other writes took"):
            await opened.add_key(key("a"))
    await opened.add_key(key("a"))
    await opened.close()


async def test_a_damaged_database_is_a_database_error(store: Store, tmp_path: Path) -> None:
    await store.close()
    with database_file(tmp_path).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4096 * 8)
    with pytest.raises(DatabaseError, match="malformed"):
        await store.keys()


async def test_the_first_keys_are_kept_only_where_there_is_none(store: Store) -> None:
    assert await store.add_first_keys([key("a", Scope.ADMIN), key("b")])
    assert not await store.add_first_keys([key("c")])
    assert await store.keys() == [key("a", Scope.ADMIN), key("b")]


async def test_revoking_a_key_again_keeps_the_first_moment(store: Store) -> None:
    await store.add_key(key("a"))
    first = await store.revoke_key("a", now=50)
    assert first is not None
    assert first.revoked_at == 50
    assert await store.revoke_key("a", now=60) == first == await store.key("a")
    assert await store.revoke_key("nope", now=60) is None
    assert await store.key("nope") is None


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    first = await Store.open(url(tmp_path))
    await first.add_key(key("a"))
    await first.close()
    second = await Store.open(url(tmp_path))
    assert await second.key("a") == key("a")
    await second.close()


async def test_the_database_belongs_to_its_user_alone(store: Store, tmp_path: Path) -> None:
    await store.add_key(key("a"))
    folder = tmp_path / "state"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_many_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    for number in range(5):
        stores = await asyncio.gather(*(Store.open(url(tmp_path / str(number))) for _ in range(8)))
        for opened in stores:
            await opened.close()


async def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    engine = open_engine(url(tmp_path))
    await migrate(engine)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert differences == []


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    await (await Store.open(url(tmp_path))).close()
    with closing(sqlite3.connect(tmp_path / "state" / "coordinator.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    with pytest.raises(DatabaseError, match="newer shrk"):
        await Store.open(url(tmp_path))


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "coordinator.db").write_text("this is not a database, but a long enough text" * 10)
    with pytest.raises(DatabaseError, match="not a database"):
        await Store.open(url(tmp_path))
