"""The store: every method is one transaction. Time is an argument, in unix milliseconds.

Every method raises DatabaseError where the database fails: full disk, locked file, no connection in time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import (
    ApiKey,
    JoinToken,
    NewNode,
    Node,
    Owner,
    Revocation,
    Scope,
    TokenProblem,
    Visibility,
)
from shrk_coordinator.store.sqlite import TURN_SECONDS_MAX, WRITES, migrate, open_engine
from shrk_coordinator.store.tables import api_keys, join_tokens, nodes, owners, revocations

#: Rows of one listing. Whoever has more needs a filter, which does not exist yet.
LISTED_MAX = 10_000


class Store:
    """Owners, nodes, join tokens, revocations and keys."""

    def __init__(self, engine: AsyncEngine, turn_seconds: float = TURN_SECONDS_MAX) -> None:
        self._engine = engine
        self._turn_seconds = turn_seconds
        # SQLite has one writer anyway: the others wait here, and leave the connections to those who read.
        self._writer = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, turn_seconds: float = TURN_SECONDS_MAX) -> Store:
        """The store at `sqlite:///PATH`, made or brought up to date. Raises DatabaseError.

        `turn_seconds` is how long a transaction waits for a connection, and a write for the writes before it.
        """
        engine = open_engine(url, turn_seconds)
        try:
            await migrate(engine)
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, DBAPIError):
                raise DatabaseError(f"{url} cannot be used: {error.orig}") from error
            raise
        return cls(engine, turn_seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(**{WRITES: writes})
                async with connection.begin():
                    yield connection
        except (IntegrityError, ProgrammingError, DataError):
            raise  # What was asked is wrong, not the database.
        except NoConnection as error:
            raise self._failed(f"all its connections were in use for {self._turn_seconds:g} s") from error
        except DBAPIError as error:
            raise self._failed(str(error.orig)) from error

    def _failed(self, why: str) -> DatabaseError:
        return DatabaseError(
            f"the database {self._engine.url.database} failed: {why}. Check the disk's free space, and that no other "
            "program holds the file"
        )

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._transaction(writes=False)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._turn_seconds):
                await self._writer.acquire()
        except TimeoutError as error:
            raise self._failed(f"other writes took {self._turn_seconds:g} s") from error
        try:
            async with self._transaction(writes=True) as connection:
                yield connection
        finally:
            self._writer.release()

    # --- owners and join tokens ---

    async def create_join_tokens(
        self,
        digests: Sequence[tuple[str, bytes]],
        *,
        owner_ids: Mapping[str, str],
        visibility: Visibility,
        labels: Mapping[str, str],
        now: int,
        expires_at: int,
    ) -> None:
        """One token for each (owner's name, SHA-256 of the secret) in `digests`, all or none.

        An owner met for the first time is made, with the id that `owner_ids` has for the name.
        """
        async with self._writing() as connection:
            for name, digest in digests:
                new = insert_or(owners).values(id=owner_ids[name], name=name, created_at=now)
                await connection.execute(new.on_conflict_do_nothing(index_elements=[owners.c.name]))
                await connection.execute(
                    insert(join_tokens).values(
                        sha256=digest,
                        owner_id=select(owners.c.id).where(owners.c.name == name).scalar_subquery(),
                        visibility=visibility.value,
                        labels=_to_json(labels),
                        created_at=now,
                        expires_at=expires_at,
                    )
                )

    async def redeem_join_token(self, sha256: bytes, asking: NewNode, now: int) -> Node | TokenProblem:
        """Take the token and write the node, both or neither; of several at once exactly one gets it.

        Whoever took it and asks again with the same key before it expires, having lost the answer, gets the
        node it already is.
        """
        # Read first: whoever knocks with a token of their own making must not take the lock that all writes need.
        async with self._reading() as connection:
            outcome = await self._without_redeeming(connection, sha256, asking, now)
        if outcome is not None:
            return outcome
        async with self._writing() as connection:
            taken = await connection.execute(
                update(join_tokens)
                .where(
                    join_tokens.c.sha256 == sha256,
                    join_tokens.c.used_at.is_(None),
                    join_tokens.c.expires_at > now,
                )
                .values(used_at=now, used_by=asking.id)
                .returning(join_tokens.c.owner_id, join_tokens.c.visibility, join_tokens.c.labels)
            )
            token = taken.one_or_none()
            if token is None:
                lost = await self._without_redeeming(connection, sha256, asking, now)
                assert lost is not None, "a token that cannot be taken has been taken or has expired"
                return lost
            await connection.execute(
                insert(nodes).values(
                    id=asking.id,
                    owner_id=token.owner_id,
                    visibility=token.visibility,
                    labels=token.labels,
                    host_name=asking.host_name,
                    agent_version=asking.agent_version,
                    public_key_sha256=asking.public_key_sha256,
                    created_at=now,
                )
            )
            return _to_node((await connection.execute(_select_nodes().where(nodes.c.id == asking.id))).one())

    async def _without_redeeming(
        self, connection: AsyncConnection, sha256: bytes, asking: NewNode, now: int
    ) -> Node | TokenProblem | None:
        """The outcome where the token is not there to be taken; None: it is."""
        found = await connection.execute(
            select(join_tokens.c.used_by, join_tokens.c.expires_at).where(join_tokens.c.sha256 == sha256)
        )
        token = found.one_or_none()
        if token is None:
            return TokenProblem.UNKNOWN
        if token.used_by is not None:
            holder = (await connection.execute(_select_nodes().where(nodes.c.id == token.used_by))).one()
            same_key = holder.public_key_sha256 == asking.public_key_sha256
            return _to_node(holder) if same_key and now < token.expires_at else TokenProblem.USED
        return None if now < token.expires_at else TokenProblem.EXPIRED

    async def join_tokens(self) -> list[JoinToken]:
        """All tokens, the newest first."""
        query = (
            select(join_tokens, owners.c.name.label("owner_name"))
            .join(owners, owners.c.id == join_tokens.c.owner_id)
            .order_by(join_tokens.c.created_at.desc(), join_tokens.c.sha256)
            .limit(LISTED_MAX)
        )
        async with self._reading() as connection:
            return [_to_join_token(row) for row in await connection.execute(query)]

    async def owners(self) -> list[Owner]:
        """All owners by name."""
        async with self._reading() as connection:
            rows = await connection.execute(select(owners).order_by(owners.c.name).limit(LISTED_MAX))
            return [Owner(row.id, row.name, row.created_at) for row in rows]

    # --- nodes and revocations ---

    async def node(self, node_id: str) -> Node | None:
        """The node of this id."""
        async with self._reading() as connection:
            return await self._node(connection, node_id)

    async def _node(self, connection: AsyncConnection, node_id: str) -> Node | None:
        row = (await connection.execute(_select_nodes().where(nodes.c.id == node_id))).one_or_none()
        return None if row is None else _to_node(row)

    async def admission(self, node_id: str, serial: str) -> tuple[Node | None, str | None]:
        """All that decides about a link: the node, and why this certificate of it is void (None: it is not)."""
        async with self._reading() as connection:
            return await self._node(connection, node_id), await self._revocation(connection, node_id, serial)

    async def nodes(self) -> list[Node]:
        """All nodes, the oldest first."""
        query = _select_nodes().order_by(nodes.c.created_at, nodes.c.id).limit(LISTED_MAX)
        async with self._reading() as connection:
            return [_to_node(row) for row in await connection.execute(query)]

    async def revoke_node(self, node_id: str, reason: str, now: int) -> None:
        """Every certificate of this node is void from now on; a second time changes nothing."""
        await self._revoke("node", node_id, reason, now)

    async def restore_node(self, node_id: str) -> bool:
        """Take back `revoke_node`; False: there was nothing to take back."""
        query = delete(revocations).where(revocations.c.kind == "node", revocations.c.subject == node_id)
        async with self._writing() as connection:
            return (await connection.execute(query)).rowcount > 0

    async def revoked_nodes(self) -> dict[str, Revocation]:
        """The nodes that are revoked now, by id."""
        query = select(revocations).where(revocations.c.kind == "node").limit(LISTED_MAX)
        async with self._reading() as connection:
            rows = await connection.execute(query)
            return {row.subject: Revocation(row.reason, row.revoked_at) for row in rows}

    async def revoke_serial(self, serial: str, reason: str, now: int) -> None:
        """The certificate of this serial (lower-case hexadecimal) is void from now on."""
        await self._revoke("serial", serial, reason, now)

    async def _revoke(self, kind: str, subject: str, reason: str, now: int) -> None:
        new = insert_or(revocations).values(kind=kind, subject=subject, reason=reason, revoked_at=now)
        async with self._writing() as connection:
            await connection.execute(new.on_conflict_do_nothing(index_elements=["kind", "subject"]))

    async def revocation(self, node_id: str, serial: str) -> str | None:
        """Why this certificate of this node is void; None: it is not."""
        async with self._reading() as connection:
            return await self._revocation(connection, node_id, serial)

    async def _revocation(self, connection: AsyncConnection, node_id: str, serial: str) -> str | None:
        query = (
            select(revocations.c.reason)
            .where(
                or_(
                    (revocations.c.kind == "node") & (revocations.c.subject == node_id),
                    (revocations.c.kind == "serial") & (revocations.c.subject == serial),
                )
            )
            .order_by(revocations.c.kind)
            .limit(1)
        )
        return (await connection.execute(query)).scalar_one_or_none()

    async def revoked_after(self, last: int) -> tuple[int, list[str]]:
        """Where the list of revocations has been read to, and the nodes and certificate serials that follow `last`.

        0 begins at its beginning; at most LISTED_MAX at once. By its place in the list none is ever missed, which
        by its time it might be: a revocation that waited for the lock appears later than the moment it carries.
        """
        query = (
            select(revocations.c.id, revocations.c.subject)
            .where(revocations.c.id > last)
            .order_by(revocations.c.id)
            .limit(LISTED_MAX)
        )
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
        return (rows[-1].id if rows else last), [row.subject for row in rows]

    # --- API keys ---

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key."""
        async with self._writing() as connection:
            await connection.execute(insert(api_keys).values(_from_key(key)))

    async def add_first_keys(self, keys: list[ApiKey]) -> bool:
        """Keep these keys if there is none yet; False: there is, and nothing was changed."""
        async with self._writing() as connection:
            count = (await connection.execute(select(func.count()).select_from(api_keys))).scalar_one()
            if count:
                return False
            await connection.execute(insert(api_keys), [_from_key(key) for key in keys])
            return True

    async def key(self, key_id: str) -> ApiKey | None:
        """The key of this id, revoked and expired ones too."""
        async with self._reading() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()
            return None if row is None else _to_key(row)

    async def keys(self) -> list[ApiKey]:
        """All keys, the oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id).limit(LISTED_MAX)
        async with self._reading() as connection:
            return [_to_key(row) for row in await connection.execute(query)]

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """The key, void from now on or from when it first was; None: there is no such key."""
        query = (
            update(api_keys)
            .where(api_keys.c.id == key_id)
            .values(revoked_at=func.coalesce(api_keys.c.revoked_at, now))
            .returning(*api_keys.c)
        )
        async with self._writing() as connection:
            row = (await connection.execute(query)).one_or_none()
            return None if row is None else _to_key(row)


def _select_nodes() -> Select[*tuple[object, ...]]:
    return select(nodes, owners.c.name.label("owner_name")).join(owners, owners.c.id == nodes.c.owner_id)


def _to_json(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False)


def _to_node(row: Row[*tuple[object, ...]]) -> Node:
    return Node(
        id=row.id,
        owner_id=row.owner_id,
        owner_name=row.owner_name,
        visibility=Visibility(row.visibility),
        host_name=row.host_name,
        agent_version=row.agent_version,
        public_key_sha256=row.public_key_sha256,
        created_at=row.created_at,
        labels=json.loads(row.labels),
    )


def _to_join_token(row: Row[*tuple[object, ...]]) -> JoinToken:
    return JoinToken(
        sha256=row.sha256,
        owner_name=row.owner_name,
        visibility=Visibility(row.visibility),
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        used_by=row.used_by,
        labels=json.loads(row.labels),
    )


def _from_key(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "sha256": key.sha256,
        "name": key.name,
        "scope": key.scope.value,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _to_key(row: Row[*tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        sha256=row.sha256,
        name=row.name,
        scope=Scope(row.scope),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
