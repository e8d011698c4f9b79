"""A node's next certificate: over its link while the last one is good, and after that by proof of its key.

The key stays the one that enrolled. Who renews late connects without a certificate, so that a challenge, signed with
the request, shows that the key is in the hands of whoever asks now.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
from collections.abc import Awaitable, Callable

import structlog
from cryptography import x509
from cryptography.x509.oid import AttributeOID

from shrk_contract.terms import LATE_RENEWAL_DAYS_MAX
from shrk_contract.v1 import enrolment_pb2, link_pb2, refusal_pb2
from shrk_coordinator.control_plane.authority import (
    Authority,
    CsrRefused,
    SignedCertificate,
    csr_public_key,
    public_key_sha256,
)
from shrk_coordinator.control_plane.identity import node_id_of, refusal, revoked, troubled, unknown_node
from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import Node

#: After its end.
LATE_MAX = dt.timedelta(days=LATE_RENEWAL_DAYS_MAX)
#: From a challenge to its answer: two round trips over the worst line that is still of use.
CHALLENGE_MS_MAX = 60_000
#: Challenges that were answered within that minute, kept so that none is answered twice; some 150 bytes each. Only
#: nodes of ours fill it, and 20,000 of them renew late once a minute at worst.
ANSWERED_MAX = 50_000
#: Nodes that are looked up at once: a whole fleet that wakes up leaves the database's connections to the others.
LOOKUPS_MAX = 2
#: A node's certificate has about 900 bytes.
CERTIFICATE_BYTES_MAX = 8 * 1024

_ENROL_ANEW = "Remove STATE_DIR/identity and enrol the node with a new join token."

#: The node of this id, and why the certificate of this serial is void, where it is.
LookUp = Callable[[str, str], Awaitable[tuple[Node | None, str | None]]]

log = structlog.get_logger("shrk.renewal")


class Renewals:
    """Signs anew for nodes that are known and not revoked. `clock` tells unix milliseconds."""

    def __init__(
        self,
        authority: Authority,
        look_up: LookUp,
        clock: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._authority = authority
        self._look_up = look_up
        self._clock = clock
        self._random_bytes = random_bytes
        # Challenges of an earlier start are void, and whoever holds one asks for another.
        self._secret = random_bytes(32)
        self._answered: dict[str, int] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)

    async def on_link(self, node_id: str, serial: str, csr_pem: str) -> link_pb2.Renewed:
        """What a node hears that asks over the link which it opened with the certificate of this serial."""
        signed = await self._renew(node_id, serial, csr_pem)
        if isinstance(signed, refusal_pb2.Refusal):
            return link_pb2.Renewed(refusal=signed)
        return link_pb2.Renewed(certificate_pem=signed.pem, ca_pem=self._authority.ca_pem)

    async def late(self, request: enrolment_pb2.RenewRequest) -> enrolment_pb2.RenewResponse:
        """What a node hears that proves itself by its key."""
        response = enrolment_pb2.RenewResponse(now_unix_ms=self._clock())
        outcome = await self._late(request)
        if isinstance(outcome, refusal_pb2.Refusal):
            response.refusal.CopyFrom(outcome)
        elif isinstance(outcome, str):
            response.challenge = outcome
        else:
            response.renewal.certificate_pem = outcome.pem
            response.renewal.ca_pem = self._authority.ca_pem
        return response

    async def _late(self, request: enrolment_pb2.RenewRequest) -> SignedCertificate | str | refusal_pb2.Refusal:
        if len(request.certificate_pem) > CERTIFICATE_BYTES_MAX:
            return _not_ours()
        certificate = self._authority.issued(request.certificate_pem)
        node_id = node_id_of(certificate) if certificate is not None else ""
        if certificate is None or not node_id:
            return _not_ours()
        now, serial = self._clock(), f"{certificate.serial_number:x}"
        if now >= (certificate.not_valid_after_utc + LATE_MAX).timestamp() * 1000:
            return refusal(
                refusal_pb2.REFUSAL_CODE_CERTIFICATE_EXPIRED,
                f"The certificate of {node_id} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, "
                f"more than {LATE_MAX.days} days ago.",
                _ENROL_ANEW,
            )
        if request.csr_pem:
            return await self._renew(node_id, serial, request.csr_pem, challenged=True)
        known = await self._known(node_id, serial)
        return self._challenge(now, serial) if isinstance(known, Node) else known

    async def _renew(
        self, node_id: str, serial: str, csr_pem: str, *, challenged: bool = False
    ) -> SignedCertificate | refusal_pb2.Refusal:
        try:
            key = csr_public_key(csr_pem)
        except CsrRefused as error:
            return refusal(refusal_pb2.REFUSAL_CODE_CSR_INVALID, error.message, error.remedy)
        node = await self._known(node_id, serial)
        if isinstance(node, refusal_pb2.Refusal):
            return node
        if not hmac.compare_digest(public_key_sha256(key), node.public_key_sha256):
            return refusal(
                refusal_pb2.REFUSAL_CODE_CSR_INVALID,
                f"The signing request is not of the key with which {node_id} enrolled.",
                _ENROL_ANEW,
            )
        now = self._clock()
        if challenged and (problem := self._unanswered(now, serial, csr_pem)) is not None:
            return problem
        signed = self._authority.sign_node(csr_pem, node_id, now)
        log.info("certificate renewed", node=node_id, late=challenged, serial=signed.serial)
        return signed

    async def _known(self, node_id: str, serial: str) -> Node | refusal_pb2.Refusal:
        """The node, if it may go on being one."""
        try:
            async with self._lookups:
                node, reason = await self._look_up(node_id, serial)
        except DatabaseError as error:
            log.error("nobody's certificate can be renewed: the database failed", why=str(error))
            return troubled()
        if node is None:
            return unknown_node(node_id)
        return node if reason is None else revoked(node_id, reason)

    # --- challenges ----------------------------------------------------------------------------------

    def _challenge(self, now: int, serial: str) -> str:
        """A text that only we can have made, for this certificate and at this moment: nothing is kept of it."""
        said = f"{now:x}.{self._random_bytes(16).hex()}"
        return f"{said}.{self._seal(said, serial)}"

    def _seal(self, said: str, serial: str) -> str:
        return hmac.digest(self._secret, f"{said}.{serial}".encode(), "sha256").hex()

    def _unanswered(self, now: int, serial: str, csr_pem: str) -> refusal_pb2.Refusal | None:
        """Why a request does not answer a challenge of ours, just made and answered for the first time; None: it does.

        Its key is known to be the node's by now.
        """
        challenge = _challenge_of(csr_pem)
        said, _, seal = challenge.rpartition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(said, serial).encode()):
            return _stale("The signing request answers no challenge of this coordinator's present start.")
        made_at = int(said.partition(".")[0], 16)
        if not 0 <= now - made_at <= CHALLENGE_MS_MAX:
            return _stale(f"The challenge is older than {CHALLENGE_MS_MAX // 1000} s.")
        self._answered = {text: at for text, at in self._answered.items() if now - at <= CHALLENGE_MS_MAX}
        if challenge in self._answered:
            return _stale("The challenge was answered already.")
        if len(self._answered) >= ANSWERED_MAX:
            return troubled()
        self._answered[challenge] = made_at
        return None


def _challenge_of(csr_pem: str) -> str:
    """The challenge that a signing request carries; empty where it carries none."""
    try:
        attributes = x509.load_pem_x509_csr(csr_pem.encode()).attributes
        return attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value.decode("ascii")
    except (x509.AttributeNotFound, ValueError):
        return ""


def _not_ours() -> refusal_pb2.Refusal:
    return refusal(
        refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN,
        "The certificate is not one that this coordinator gave to a node.",
        f"Check that the node's `controller` is the coordinator it enrolled with. If that was installed anew: "
        f"{_ENROL_ANEW[0].lower()}{_ENROL_ANEW[1:]}",
    )


def _stale(message: str) -> refusal_pb2.Refusal:
    """Another try begins with another challenge."""
    return refusal_pb2.Refusal(
        code=refusal_pb2.REFUSAL_CODE_CSR_INVALID,
        message=message,
        remedy="Nothing to do: the agent asks for another challenge.",
        retry_after_ms=1_000,
    )
