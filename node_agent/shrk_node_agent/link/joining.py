"""Which identity this machine starts with: the one on its disk as long as it is of use, whatever token is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from shrk_node_agent.link.identity import CertificateExpired, CertificateOutOfDate, Identity, IdentityError, load, save
from shrk_node_agent.link.join_token import JoinTokenInvalid, parse_join_token
from shrk_node_agent.link.renewal import LateIdentity, RenewalFailed

log = structlog.get_logger("shrk.agent")


class OtherCoordinator(IdentityError):
    """The join token is of another coordinator than the identity."""


async def known_identity(
    directory: Path,
    join_token: str | None,
    addresses: Sequence[str],
    now_unix_ms: int,
    late: Callable[[Identity, str], Awaitable[LateIdentity]],
) -> Identity | None:
    """The identity on disk; None: there is none, or none of use, and the join token is to bring one.

    A good identity is kept, and the token not spent. One that has expired is renewed by `late`; where the coordinator
    will not, the token is used if there is one. `addresses`: where to ask; empty: where the identity says. Raises
    OtherCoordinator, and IdentityError where the folder is damaged.
    """
    identity = await asyncio.to_thread(load, directory)
    if identity is None or join_token is None:
        return identity
    _check_same_coordinator(directory, identity, join_token)
    try:
        identity.check_dates(now_unix_ms)
    except CertificateExpired as expired:
        return await _renewed(directory, identity, (addresses or identity.link_addresses)[0], expired, late)
    except CertificateOutOfDate:
        return identity  # the clock is wrong: the dialler says so, and a new identity would not help
    log.info("this machine is a node already; the join token is not used", node=identity.node_id)
    return identity


async def _renewed(
    directory: Path,
    identity: Identity,
    address: str,
    why: CertificateExpired,
    late: Callable[[Identity, str], Awaitable[LateIdentity]],
) -> Identity | None:
    try:
        renewed = (await late(identity, address)).identity
    except RenewalFailed as refused:
        log.warning("enrolling again", why=why.message, refused=refused.message)
        return None
    except IdentityError as error:
        log.warning("the certificate could not be renewed yet", why=why.message, error=str(error))
        return identity
    await asyncio.to_thread(save, directory, renewed)
    return renewed


def _check_same_coordinator(directory: Path, identity: Identity, join_token: str) -> None:
    """Whether the token is of the coordinator that the node belongs to. Raises OtherCoordinator."""
    try:
        token = parse_join_token(join_token)
    except JoinTokenInvalid as error:
        log.warning("the join token cannot be read, and is not needed", why=str(error))
        return
    known = identity.ca_digests()
    if token.ca_sha256 not in known:
        raise OtherCoordinator(
            f"This machine is {identity.node_id} of the coordinator at {identity.controller} (CA "
            f"{', '.join(digest.hex() for digest in known)}), and the join token is of another one (CA "
            f"{token.ca_sha256.hex()}).",
            f"To leave the old one: mv {directory} {directory}.old, then start again. To stay: take the join token and "
            "the other coordinator's address out of the settings.",
        )
