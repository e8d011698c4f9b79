"""The tables as they are now; `migrations/` is how they came to be. Times are unix milliseconds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

owners = Table(
    "owners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text, ForeignKey("owners.id"), nullable=False, index=True),
    Column("visibility", Text, nullable=False),
    Column("labels", Text, nullable=False),  # a JSON object of texts
    Column("host_name", Text, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("public_key_sha256", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("owner_id", Text, ForeignKey("owners.id"), nullable=False, index=True),
    Column("visibility", Text, nullable=False),
    Column("labels", Text, nullable=False),  # a JSON object of texts
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    # Deferred: the token is taken first, in one statement, and its node is written after.
    Column("used_by", Text, ForeignKey("nodes.id", deferrable=True, initially="DEFERRED")),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, CheckConstraint("kind IN ('node', 'serial')"), nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),
    UniqueConstraint("kind", "subject"),
    sqlite_autoincrement=True,  # ids only grow, also past removed rows: followers of the list go by them
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("scope", Text, CheckConstraint("scope IN ('caller', 'admin')"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)
