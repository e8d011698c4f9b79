"""An SQLite database that survives a pulled plug, and its migrations.

WAL with `synchronous=FULL` costs 0.13 ms a commit and keeps every acknowledged one.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from shrk_coordinator.errors import DatabaseError

#: How long a writer waits for another's transaction. Ours take milliseconds; five seconds mean that somebody
#: holds the file open with another tool.
BUSY_TIMEOUT_MS = 5000
#: Connections (a thread each). One writes at any time; the others read.
POOL_SIZE = 4
#: How long a transaction waits for its turn: for a connection, and before that, where it writes, for the writers
#: before it. Two of them that wait for another tool's lock in vain fit in.
TURN_SECONDS_MAX = 10.0
#: Execution option of transactions that write: they take the write lock at once, so that none fails half-way
#: because another wrote between its read and its write.
WRITES = "shrk_writes"

_MIGRATIONS = Path(__file__).with_name("migrations")


def open_engine(url: str, turn_seconds: float = TURN_SECONDS_MAX) -> AsyncEngine:
    """An engine for `sqlite:///PATH`; the file is made with mode 0600 in a folder of mode 0700. Raises DatabaseError.

    `turn_seconds` is how long a transaction waits for a connection.
    """
    parsed = make_url(url).set(drivername="sqlite+aiosqlite")
    if not parsed.database:
        raise DatabaseError(f"{url} names no file; use sqlite:///PATH")
    path = Path(parsed.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its -wal and -shm files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be opened: {error.strerror}. Give a folder you may write to: --state-dir DIR"
        ) from error
    _switch_to_wal(path)
    engine = create_async_engine(parsed, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=turn_seconds)
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _switch_to_wal(path: Path) -> None:
    """The file keeps it. Raises DatabaseError."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # SQLite does not wait for another process that makes the same switch: so one at a time.
        fcntl.flock(folder, fcntl.LOCK_EX)
        with closing(sqlite3.connect(path, BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError as error:
        raise DatabaseError(f"{path} cannot be used: {error}") from error
    finally:
        os.close(folder)


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # Python's driver would begin transactions by itself, too late and not for DDL: `_begin` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


async def migrate(engine: AsyncEngine) -> None:
    """Bring the tables to the newest step, all or nothing. Raises DatabaseError for a newer database."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)

    def is_current(connection: Connection) -> bool:
        revision = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in scripts.walk_revisions()}
        if revision is not None and revision not in known:
            raise DatabaseError(
                f"the database was written by a newer shrk (schema {revision}). Update shrk, or restore the backup "
                "made before the update"
            )
        return revision == scripts.get_current_head()

    def upgrade(connection: Connection) -> None:
        if not is_current(connection):  # another process may have been quicker
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    async with engine.connect() as connection:
        if await connection.run_sync(is_current):
            return
    async with engine.connect() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():
            await connection.run_sync(upgrade)
