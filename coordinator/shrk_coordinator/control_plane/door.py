"""Who may open a link: a node with a certificate of ours that is current and not revoked.

gRPC checks certificates at the handshake only. What changes later is checked here: dates when a link opens and
by a timer while it lives, revocations when it opens and every few seconds after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shrk_contract.v1.refusal_pb2 import Refusal
from shrk_coordinator.control_plane.identity import Peer, PeerContext, peer_of, revoked, troubled, unknown_node
from shrk_coordinator.control_plane.link_server import Admitted
from shrk_coordinator.control_plane.links import Links
from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import Node

#: A revoked node is cut within 5 s: one look, and time for its last word.
LOOK_SECONDS = 2.0
#: Nodes that are looked up at once. After a restart all of them knock together: they wait here, some milliseconds each,
#: and leave half of the database's connections to callers, and the event loop to everybody.
LOOKUPS_MAX = 2

log = structlog.get_logger("shrk.door")


class Door:
    """Looks at certificates, and keeps looking while links live. Times are unix milliseconds."""

    def __init__(
        self,
        look_up: Callable[[str, str], Awaitable[tuple[Node | None, str | None]]],
        revoked_after: Callable[[int], Awaitable[tuple[int, list[str]]]],
        clock: Callable[[], int],
    ) -> None:
        """`look_up`: the node of this id, and why the certificate of this serial is void, where it is."""
        self._look_up = look_up
        self._revoked_after = revoked_after
        self._clock = clock
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)

    async def admit(self, context: PeerContext) -> Admitted | Refusal:
        """The node behind a call, or why it may not come in."""
        async with self._lookups:
            return await self._admit(context)

    async def _admit(self, context: PeerContext) -> Admitted | Refusal:
        now = self._clock()
        peer = peer_of(context, now)
        if not isinstance(peer, Peer):
            return peer
        try:
            node, reason = await self._look_up(peer.node_id, peer.serial)
        except DatabaseError as error:
            log.error("nobody can be let in: the database failed", why=str(error))
            return troubled()
        if node is None:
            return unknown_node(peer.node_id)
        if reason is not None:
            return revoked(peer.node_id, reason)
        return Admitted(peer.node_id, peer.serial, node.owner_name, (peer.not_after_unix_ms - now) / 1000)

    async def watch(self, links: Links, look_seconds: float = LOOK_SECONDS) -> None:
        """Cut the links of nodes that are revoked while linked; until cancelled."""
        last = 0
        # All there ever were and were not found restored, some 100 bytes each, written by people: a node that was
        # let in just before its revocation, and says hello just after we read of it, is then found at the next look.
        subjects: set[str] = set()
        while True:
            await asyncio.sleep(look_seconds)
            try:
                last, found = await self._revoked_after(last)
                subjects.update(found)
                await self._cut(links, subjects)
            except DatabaseError as error:
                log.error("revocations cannot be read; trying again", why=str(error))

    async def _cut(self, links: Links, subjects: set[str]) -> None:
        """Cut the links of these nodes and serials. Raises DatabaseError."""
        for link in links.all():
            if link.node_id in subjects or link.serial in subjects:
                # Asked again: what was revoked may have been restored since it was read, and may be revoked anew.
                _, reason = await self._look_up(link.node_id, link.serial)
                if reason is not None:
                    link.refuse(revoked(link.node_id, reason))
                else:
                    subjects -= {link.node_id, link.serial}
