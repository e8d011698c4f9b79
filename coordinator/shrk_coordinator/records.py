"""What the coordinator keeps about people and machines, as plain values. All times are unix milliseconds.

The store writes and reads them, accounts and control plane reason with them; none of these three
imports another.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: Pseudonyms remembered: one for each node of a large network.
PSEUDONYMS_MAX = 20_000


class Visibility(StrEnum):
    """Who may be served by a node."""

    #: Its owner's own keys only.
    PRIVATE = "private"
    #: Everybody.
    PUBLIC = "public"


class Scope(StrEnum):
    """What an API key may do."""

    CALLER = "caller"
    ADMIN = "admin"


@functools.lru_cache(maxsize=PSEUDONYMS_MAX)
def pseudonym(node_id: str) -> str:
    """What callers see of a node: stable, and not reversible, since node ids are random and never published."""
    return f"node-{hashlib.sha256(node_id.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom nodes belong to."""

    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that enrolled, with what its join token said about it."""

    id: str
    owner_id: str
    owner_name: str
    visibility: Visibility
    host_name: str
    agent_version: str
    #: SHA-256 of the public key's DER: a lost answer to an enrolment may be asked for again by its holder.
    public_key_sha256: bytes
    created_at: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewNode:
    """A machine at the door: all that is known of it before its join token is looked at."""

    id: str
    host_name: str
    agent_version: str
    public_key_sha256: bytes


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A single-use invitation. Only the digest of its secret is kept."""

    sha256: bytes
    owner_name: str
    visibility: Visibility
    created_at: int
    expires_at: int
    used_at: int | None = None
    used_by: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class TokenProblem(StrEnum):
    """Why a join token admits nobody."""

    UNKNOWN = "unknown"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a caller authenticates with. Only the digest of its text is kept."""

    id: str
    sha256: bytes
    name: str
    scope: Scope
    created_at: int
    #: None: does not expire.
    expires_at: int | None = None
    revoked_at: int | None = None

    def usable(self, now: int) -> bool:
        """Whether the key opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
