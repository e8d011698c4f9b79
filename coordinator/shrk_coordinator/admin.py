"""What the operator's commands do: on the state folder, beside a running coordinator or without one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from shrk_contract.trouble import Trouble
from shrk_coordinator.accounts.keys import RANDOM_BYTES, MintedKey, base62_secret, mint
from shrk_coordinator.control_plane.authority import Authority
from shrk_coordinator.control_plane.enrolment import join_token_text, new_owner_id, secret_sha256
from shrk_coordinator.records import ApiKey, JoinToken, Node, Revocation, Scope, Visibility, pseudonym
from shrk_coordinator.settings import CoordinatorSettings
from shrk_coordinator.store.store import Store

#: What a running coordinator writes about itself, under the state folder.
RUN_FILE = Path("run") / "coordinator.json"
_RUN_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Initialised:
    """What the first `init` made; on a later one the keys are None."""

    ca_fingerprint: str
    admin_key: MintedKey | None
    api_key: MintedKey | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """A join token for one owner's next node."""

    owner: str
    token: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Invitations:
    """Join tokens, and where their holders find the coordinator."""

    tokens: tuple[Invitation, ...]
    #: `tcp://host:port`; None where only the operator knows which of the machine's addresses nodes can reach.
    controller: str | None
    link_port: int
    ca_fingerprint: str


@dataclass(frozen=True, slots=True)
class _Ports:
    link: int
    enrolment: int


class Administration:
    """The commands' work. `clock` tells unix ms, `random_bytes` gives so many random bytes."""

    def __init__(
        self, settings: CoordinatorSettings, clock: Callable[[], int], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random_bytes = random_bytes

    async def initialise(self) -> Initialised:
        """Make CA, database and the first two keys, as far as they do not exist."""
        authority = Authority.open(self._settings.state_dir, self._clock)
        admin, caller = self._mint(), self._mint()
        async with self._store() as store:
            keys = [self._row(admin, "first admin", Scope.ADMIN), self._row(caller, "first key", Scope.CALLER)]
            new = await store.add_first_keys(keys)
        return Initialised(authority.ca_fingerprint(), admin if new else None, caller if new else None)

    async def create_join_tokens(
        self, owners: list[str], ttl_ms: int, visibility: Visibility, labels: Mapping[str, str]
    ) -> Invitations:
        """One single-use token for each entry of `owners`; owners are made as needed."""
        authority = self._authority()
        ports = self._ports()
        secrets = [(owner, base62_secret(self._random_bytes(32))) for owner in owners]
        now = self._clock()
        async with self._store() as store:
            await store.create_join_tokens(
                [(owner, secret_sha256(secret)) for owner, secret in secrets],
                owner_ids={owner: new_owner_id(self._random_bytes) for owner in owners},
                visibility=visibility,
                labels=labels,
                now=now,
                expires_at=now + ttl_ms,
            )
        pin = authority.ca_digest()
        return Invitations(
            tokens=tuple(
                Invitation(owner, join_token_text(secret, ports.enrolment, pin), now + ttl_ms)
                for owner, secret in secrets
            ),
            controller=self._controller(ports.link),
            link_port=ports.link,
            ca_fingerprint=authority.ca_fingerprint(),
        )

    async def join_tokens(self) -> list[JoinToken]:
        """All join tokens, without their secrets."""
        self._authority()
        async with self._store() as store:
            return await store.join_tokens()

    async def create_key(self, name: str, scope: Scope, expires_in_ms: int | None) -> tuple[MintedKey, ApiKey]:
        """A new key and its row."""
        self._authority()
        minted = self._mint()
        row = self._row(minted, name, scope, expires_in_ms)
        async with self._store() as store:
            await store.add_key(row)
        return minted, row

    async def keys(self) -> list[ApiKey]:
        """All keys, without their texts."""
        self._authority()
        async with self._store() as store:
            return await store.keys()

    async def has_usable_key(self) -> bool:
        """Whether any caller could be let in; also where nothing was initialised yet."""
        # Looking must not make a database, which is the start's to do.
        if not (self._settings.state_dir / "ca").exists():
            return False
        async with self._store() as store:
            return any(key.usable(self._clock()) for key in await store.keys())

    async def revoke_key(self, key_id: str) -> tuple[ApiKey, bool]:
        """Make a key void; a running coordinator notices within seconds. (the key, whether it was void before)."""
        self._authority()
        now = self._clock()
        async with self._store() as store:
            key = await store.revoke_key(key_id, now)
        if key is None:
            raise Trouble(
                f"there is no key {key_id!r}. See the ids with: "
                f"shrk coordinator keys list{self._settings.state_dir_option}"
            )
        return key, key.revoked_at != now

    async def nodes(self) -> list[Node]:
        """All nodes that enrolled."""
        self._authority()
        async with self._store() as store:
            return await store.nodes()

    async def revoked_nodes(self) -> dict[str, Revocation]:
        """Those of them that are revoked, by id."""
        async with self._store() as store:
            return await store.revoked_nodes()

    async def revoke_node(self, name: str, reason: str) -> tuple[Node, Revocation, bool]:
        """Make a node's certificates void; a running coordinator cuts its link within seconds.

        (the node, what is written of it, whether it was revoked before). Raises Trouble.
        """
        self._authority()
        async with self._store() as store:
            node = self._named(name, await store.nodes())
            before = (await store.revoked_nodes()).get(node.id)
            revocation = before or Revocation(reason, self._clock())
            await store.revoke_node(node.id, revocation.reason, revocation.revoked_at)  # twice changes nothing
            return node, revocation, before is not None

    async def restore_node(self, name: str) -> tuple[Node, bool]:
        """Take a revocation back. (the node, whether it was revoked). Raises Trouble."""
        self._authority()
        async with self._store() as store:
            node = self._named(name, await store.nodes())
            return node, await store.restore_node(node.id)

    def _named(self, name: str, nodes: list[Node]) -> Node:
        found = [node for node in nodes if name in (node.id, pseudonym(node.id))]
        if not found:
            raise Trouble(
                f"there is no node {name!r}. See the ids with: "
                f"shrk coordinator nodes list{self._settings.state_dir_option}"
            )
        return found[0]

    def now(self) -> int:
        """Unix milliseconds."""
        return self._clock()

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        store = await Store.open(self._settings.database_url)
        try:
            yield store
        finally:
            await store.close()

    def _authority(self) -> Authority:
        # A mistyped folder must not become a second coordinator whose tokens and keys open nothing.
        if not (self._settings.state_dir / "ca").exists():
            raise Trouble(
                f"no coordinator lives in {self._settings.state_dir}. Name its folder with --state-dir DIR, or make "
                f"a new one: shrk coordinator init --state-dir {self._settings.state_dir}"
            )
        return Authority.open(self._settings.state_dir, self._clock)

    def _mint(self) -> MintedKey:
        return mint(self._random_bytes(RANDOM_BYTES))

    def _row(self, minted: MintedKey, name: str, scope: Scope, expires_in_ms: int | None = None) -> ApiKey:
        now = self._clock()
        expires_at = None if expires_in_ms is None else now + expires_in_ms
        return ApiKey(minted.id, minted.sha256, name, scope, created_at=now, expires_at=expires_at)

    def _ports(self) -> _Ports:
        """The ports in use: of the running coordinator, else of the settings."""
        running = _running_ports(self._settings.state_dir / RUN_FILE)
        ports = running or _Ports(self._settings.link_listen.port, self._settings.enrolment_listen.port)
        if not ports.enrolment:
            raise Trouble(
                "the enrolment port is chosen when the coordinator starts (it is set to 0), and none runs on "
                f"{self._settings.state_dir}. Start it first, or set one: --enrolment-listen HOST:PORT"
            )
        return ports

    def _controller(self, link_port: int) -> str | None:
        listen = self._settings.link_listen
        if self._settings.public_link_address or listen.is_wildcard:
            return self._settings.public_link_address
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        return f"tcp://{host}:{link_port}"


def _running_ports(path: Path) -> _Ports | None:
    """The ports of the coordinator that wrote `path`, if it still runs."""
    try:
        with path.open("rb") as file:
            fields = orjson.loads(file.read(_RUN_FILE_BYTES_MAX))
        pid, ports = int(fields["pid"]), _Ports(int(fields["link_port"]), int(fields["enrolment_port"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{path} cannot be understood ({error!r}). Start the coordinator again") from error
    return ports if _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs as another user
    return True
