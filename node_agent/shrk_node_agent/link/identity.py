"""Who this node is: its key, its certificate and the CA it trusts, in one folder of mode 0700.

`node.key` (0600), `node.pem`, `ca.pem`, `node.json`, and `incarnation`, which counts the agent's starts.
Every file is replaced whole, and `node.json` comes last: a folder without it is no identity.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from shrk_contract import durable
from shrk_contract.terms import LATE_RENEWAL_DAYS_MAX

_PRIVATE, _PUBLIC = 0o600, 0o644


class IdentityError(Exception):
    """The identity cannot be used. `str()` says why; `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


class CertificateOutOfDate(IdentityError):
    """The certificate is not valid at this moment: the coordinator would close the connection unexplained."""


class CertificateExpired(CertificateOutOfDate):
    """It was, and may be renewed late."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's identity as it lies on disk."""

    node_id: str
    key_pem: bytes = field(repr=False)  # a log line must not give it away
    certificate_pem: bytes
    #: Every CA to trust for links, concatenated.
    ca_pem: bytes
    #: Where to open links, as `tcp://host:port`; never empty.
    link_addresses: tuple[str, ...]
    #: The address it enrolled with, as the owner wrote it.
    controller: str
    not_before: dt.datetime
    not_after: dt.datetime
    #: On the coordinator's host; 0: not known, as with identities of older agents.
    enrolment_port: int = 0

    def ca_digests(self) -> list[bytes]:
        """SHA-256 of each trusted CA certificate's DER, as join tokens pin it."""
        return [ca.fingerprint(hashes.SHA256()) for ca in x509.load_pem_x509_certificates(self.ca_pem)]

    def renewed(self, certificate_pem: bytes, ca_pem: bytes) -> Identity:
        """The same node and key with a new certificate. Raises IdentityError where it is not for this key."""
        return _checked(replace(self, certificate_pem=certificate_pem, ca_pem=ca_pem))

    def check_dates(self, now_unix_ms: int) -> None:
        """Raises CertificateOutOfDate. gRPC would only say "Socket closed"."""
        now = dt.datetime.fromtimestamp(now_unix_ms / 1000, dt.UTC)
        clock = f"This machine's clock says {now:%Y-%m-%d %H:%M} UTC."
        if now >= self.not_after:
            late_until = self.not_after + dt.timedelta(days=LATE_RENEWAL_DAYS_MAX)
            raise CertificateExpired(
                f"The certificate of {self.node_id} expired on {self.not_after:%Y-%m-%d %H:%M} UTC. {clock}",
                "If the clock is right, have the agent run and reach its coordinator: it renews the certificate by "
                f"itself until {late_until:%Y-%m-%d} (shrk start, shrk netcheck)."
                if now < late_until
                else "If the clock is right, enrol again with a new join token: "
                "SHRK_JOIN_TOKEN=... shrk node run (the coordinator's operator makes one).",
            )
        if now < self.not_before:
            raise CertificateOutOfDate(
                f"The certificate of {self.node_id} is valid from {self.not_before:%Y-%m-%d %H:%M} UTC. {clock}",
                "Set the clock, for example with: timedatectl set-ntp true",
            )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a link: trusts only our coordinator's CA, and proves who we are."""
        return grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.certificate_pem)


def new_identity(
    *,
    node_id: str,
    key_pem: bytes,
    certificate_pem: bytes,
    ca_pem: bytes,
    link_addresses: tuple[str, ...],
    controller: str,
    enrolment_port: int = 0,
) -> Identity:
    """An identity from its parts. Raises IdentityError where they do not belong together."""
    nothing = dt.datetime.fromtimestamp(0, dt.UTC)  # `_checked` reads the real ones from the certificate
    return _checked(
        Identity(
            node_id,
            key_pem,
            certificate_pem,
            ca_pem,
            link_addresses,
            controller,
            not_before=nothing,
            not_after=nothing,
            enrolment_port=enrolment_port,
        )
    )


def load(directory: Path) -> Identity | None:
    """The identity in `directory`; None where there is none. Raises IdentityError where it is damaged."""
    try:
        fields = orjson.loads((directory / "node.json").read_bytes())
        return new_identity(
            node_id=fields["node_id"],
            key_pem=(directory / "node.key").read_bytes(),
            certificate_pem=(directory / "node.pem").read_bytes(),
            ca_pem=(directory / "ca.pem").read_bytes(),
            link_addresses=tuple(fields["link_addresses"]),
            controller=fields["controller"],
            enrolment_port=int(fields.get("enrolment_port", 0)),
        )
    except FileNotFoundError as error:
        if error.filename == str(directory / "node.json"):
            return None
        raise _damaged(directory, f"{error.filename} is missing") from error
    except OSError as error:
        raise IdentityError(
            f"{error.filename} cannot be read: {error.strerror}.", "Run the agent as the user that enrolled the node."
        ) from error
    except (KeyError, TypeError, ValueError) as error:  # orjson's errors are ValueErrors
        raise _damaged(directory, f"node.json cannot be understood: {error}") from error
    except IdentityError as error:
        raise _damaged(directory, error.message) from error


def save(directory: Path, identity: Identity) -> None:
    """Write the identity so that a crash leaves the old one, the new one, or (with a new key) none.

    Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = directory / "node.key"
    if key.exists() and key.read_bytes() != identity.key_pem:
        (directory / "node.json").unlink(missing_ok=True)  # the old certificate does not fit the new key
        durable.sync_folder(directory)
    durable.replace(key, identity.key_pem, _PRIVATE)
    durable.replace(directory / "ca.pem", identity.ca_pem, _PUBLIC)
    durable.replace(directory / "node.pem", identity.certificate_pem, _PUBLIC)
    fields = {
        "schema": 1,
        "node_id": identity.node_id,
        "link_addresses": identity.link_addresses,
        "controller": identity.controller,
        "enrolment_port": identity.enrolment_port,
    }
    durable.replace(directory / "node.json", orjson.dumps(fields, option=orjson.OPT_INDENT_2), _PUBLIC)


def next_incarnation(directory: Path) -> int:
    """The number of this start: greater than every one before, and on disk before it is used.

    Raises IdentityError where the last one cannot be read; OSError where the new one cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "incarnation"
    try:
        last = int(path.read_text())
    except FileNotFoundError:
        last = 0
    except ValueError as error:
        # Starting from 1 again would look like an older start, and be refused for ever.
        raise IdentityError(f"{path} holds no number.", "Enrol again with a new join token.") from error
    durable.replace(path, f"{last + 1}\n".encode(), _PUBLIC)
    return last + 1


def _checked(identity: Identity) -> Identity:
    """The identity with its certificate's dates, if key, certificate and CA belong together."""
    remedy = "Enrol again with a new join token."
    try:
        certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
        authorities = x509.load_pem_x509_certificates(identity.ca_pem)
        key = serialization.load_pem_private_key(identity.key_pem, None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"The node's key or certificate cannot be read: {error}.", remedy) from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)) or (
        key.public_key() != certificate.public_key()
    ):
        raise IdentityError("The node's key does not belong to its certificate.", remedy)
    if not any(certificate.issuer == authority.subject for authority in authorities):
        raise IdentityError("The node's certificate is not from the CA it trusts.", remedy)
    if not identity.link_addresses:
        raise IdentityError("The identity names no coordinator to connect to.", remedy)
    return replace(identity, not_before=certificate.not_valid_before_utc, not_after=certificate.not_valid_after_utc)


def _damaged(directory: Path, what: str) -> IdentityError:
    return IdentityError(
        f"The node's identity in {directory} is damaged: {what}.",
        "Restore the folder from a backup, or move it away and enrol again with a new join token.",
    )
