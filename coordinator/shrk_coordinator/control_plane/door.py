"""Who may open a link: a node with a certificate of ours that is current and not revoked.

gRPC checks certificates at the handshake only. What changes later is checked here: dates when a link opens and
by a timer while it lives, revocations when it opens and every few seconds after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shrk_contract.v1.refusal_pb2 import REFUSAL_CODE_CERTIFICATE_REVOKED, REFUSAL_CODE_NODE_UNKNOWN, Refusal
from shrk_coordinator.control_plane.identity import Peer, PeerContext, peer_of, refusal, troubled
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
            return refusal(
                REFUSAL_CODE_NODE_UNKNOWN,
                f"This coordinator does not know {peer.node_id}.",
                "Remove STATE_DIR/identity and enrol the node with a new join token.",
            )
        if reason is not None:
            return _revoked(peer.node_id, reason)
        return Admitted(peer.node_id, peer.serial, node.owner_name, (peer.not_after_unix_ms - now) / 1000)

    async def watch(self, links: Links, look_seconds: float = LOOK_SECONDS) -> None:
        """Cut the links of nodes that are revoked while linked; until cancelled."""
        last = 0
        # All there ever were, some 100 bytes each, written by people: a node that was let in just before its
        # revocation, and says hello just after we read of it, is then found at the next look.
        revoked: set[str] = set()
        while True:
            await asyncio.sleep(look_seconds)
            try:
                last, found = await self._revoked_after(last)
                revoked.update(found)
            except DatabaseError as error:
                log.error("revocations cannot be read; trying again", why=str(error))
            for link in links.all():
                if link.node_id in revoked or link.serial in revoked:
                    link.refuse(_revoked(link.node_id, "revoked by the coordinator's operator"))


def _revoked(node_id: str, reason: str) -> Refusal:
    return refusal(
        REFUSAL_CODE_CERTIFICATE_REVOKED,
        f"The certificate of {node_id} was revoked: {reason}.",
        "Ask the operator. To come back as a new node, remove STATE_DIR/identity and use a new join token.",
    )
