"""Who is at the other end of a link: read from the client certificate of the connection.

gRPC checks certificates at the handshake only and never again, so their dates are checked here, and a link
gets a deadline at `Peer.not_after_unix_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from shrk_contract.v1 import refusal_pb2

_NODE_URI_PREFIX = "shrk://node/"


class PeerContext(Protocol):
    """The part of gRPC's servicer context that is read here."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Properties of the connection, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A certified node."""

    node_id: str
    #: Lower-case hexadecimal.
    serial: str
    not_after_unix_ms: int


def refusal(code: refusal_pb2.RefusalCode.ValueType, message: str, remedy: str) -> refusal_pb2.Refusal:
    """A no for good: the same again cannot help."""
    return refusal_pb2.Refusal(code=code, message=message, remedy=remedy, permanent=True)


def peer_of(context: PeerContext, now: int) -> Peer | refusal_pb2.Refusal:
    """The node behind a call at `now` (unix ms), or why it is none. Revocation is the caller's to check."""
    pem = b"".join(context.auth_context().get("x509_pem_cert", ()))
    enrol = "Enrol the node with a new join token."
    if not pem:
        return refusal(refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN, "No client certificate was presented.", enrol)
    certificate = x509.load_pem_x509_certificate(pem)
    node_id = node_id_of(certificate)
    if not node_id:
        return refusal(refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN, "The certificate names no node.", enrol)
    not_after = round(certificate.not_valid_after_utc.timestamp() * 1000)
    if now >= not_after:
        return refusal(
            refusal_pb2.REFUSAL_CODE_CERTIFICATE_EXPIRED,
            f"The certificate of {node_id} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
            "Agents renew it by themselves. If this one does not: check the machine's clock, update the agent, or "
            "enrol the node with a new join token.",
        )
    return Peer(node_id, f"{certificate.serial_number:x}", not_after)


def node_id_of(certificate: x509.Certificate) -> str:
    """The node that a certificate names; empty where it names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(_NODE_URI_PREFIX):
            return uri.removeprefix(_NODE_URI_PREFIX)
    return ""


def unknown_node(node_id: str) -> refusal_pb2.Refusal:
    """Its certificate is ours, and nothing is written of it: the database was made anew, or is an old copy."""
    return refusal(
        refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN,
        f"This coordinator does not know {node_id}.",
        "Remove STATE_DIR/identity and enrol the node with a new join token.",
    )


def revoked(node_id: str, reason: str) -> refusal_pb2.Refusal:
    """Its operator's word against it."""
    return refusal(
        refusal_pb2.REFUSAL_CODE_CERTIFICATE_REVOKED,
        f"The operator of this coordinator revoked {node_id}: {reason}.",
        f"Ask the operator, who can take it back (shrk coordinator nodes restore {node_id}). To come back as a new "
        "node, remove STATE_DIR/identity and use a new join token.",
    )


def troubled() -> refusal_pb2.Refusal:
    """Our own records cannot be used now; the log has the reason, which is no business of a node."""
    return refusal_pb2.Refusal(
        code=refusal_pb2.REFUSAL_CODE_COORDINATOR_TROUBLED,
        message="The coordinator cannot use its database now.",
        remedy="Nothing to do here: try again in a moment. Its operator finds the reason in its log.",
        retry_after_ms=5_000,
    )
