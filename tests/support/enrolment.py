"""A coordinator's enrolment port on loopback, with a real store and a real CA, and a clock that tests set."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shrk_coordinator.accounts.keys import base62_secret
from shrk_coordinator.control_plane.authority import Authority
from shrk_coordinator.control_plane.enrolment import (
    EnrolmentServicer,
    LinkAddresses,
    join_token_text,
    new_owner_id,
    secret_sha256,
    serve_enrolment,
)
from shrk_coordinator.control_plane.renewal import Renewals
from shrk_coordinator.records import Visibility
from shrk_coordinator.settings import Address
from shrk_coordinator.store.store import Store

LINK_PORT = 9100


class Clock:
    """Unix milliseconds: the real ones (TLS looks at those), moved by what a test adds."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@dataclass
class EnrolmentPort:
    """What a test needs of the coordinator's side."""

    store: Store
    authority: Authority
    clock: Clock
    port: int
    renewals: Renewals

    @property
    def controller(self) -> str:
        """The address an owner would write; its own port plays no part in enrolling."""
        return f"tcp://127.0.0.1:{LINK_PORT}"

    @property
    def address(self) -> str:
        """Where the port listens, as gRPC takes it."""
        return f"127.0.0.1:{self.port}"

    async def secret(self, owner: str = "ann", ttl_ms: int = 60_000) -> str:
        """The secret of a new join token."""
        secret = base62_secret(os.urandom(32))
        now = self.clock()
        await self.store.create_join_tokens(
            [(owner, secret_sha256(secret))],
            owner_ids={owner: new_owner_id(os.urandom)},
            visibility=Visibility.PRIVATE,
            labels={"room": "cellar"},
            now=now,
            expires_at=now + ttl_ms,
        )
        return secret

    def token(self, secret: str) -> str:
        """The text for the owner."""
        return join_token_text(secret, self.port, self.authority.ca_digest())


@asynccontextmanager
async def enrolment_port(
    state_dir: Path, public_link_address: str | None = None, renews: bool = True
) -> AsyncIterator[EnrolmentPort]:
    """Serve enrolment on a free port until the block ends."""
    clock = Clock()
    authority = Authority.open(state_dir, clock)
    store = await Store.open(f"sqlite:///{state_dir}/coordinator.db")
    renewals = Renewals(authority, store.admission, clock, os.urandom)
    servicer = EnrolmentServicer(
        authority,
        store.redeem_join_token,
        LinkAddresses(LINK_PORT, public_link_address),
        clock=clock,
        random_bytes=os.urandom,
        renewals=renewals if renews else None,
    )
    server, port = await serve_enrolment(servicer, authority.enrolment_credentials(), Address("127.0.0.1", 0))
    try:
        yield EnrolmentPort(store, authority, clock, port, renewals)
    finally:
        await server.stop(None)
        await store.close()
