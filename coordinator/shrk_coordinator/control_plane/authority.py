"""The coordinator's own certificate authority: one key on disk, which says who it and its nodes are.

The CA (EC P-256) is made on the first start in `<state_dir>/ca`. Server certificates live in memory only and
are issued anew when half used up, so no restart and no cron job is needed. All times are unix milliseconds.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shrk_contract import durable
from shrk_contract.terms import COORDINATOR_TLS_NAME
from shrk_contract.trouble import Trouble

#: Every node pins the CA: replacing it means enrolling all of them again.
CA_LIFE = dt.timedelta(days=3650)
#: Short, since it is renewed by itself; long enough that a wrong clock does not show.
SERVER_LIFE = dt.timedelta(days=30)
#: How long a stolen node key works where nobody noticed (who notices revokes it, within seconds). Agents renew at
#: two thirds of it: eight hours are left for a coordinator that is away.
NODE_LIFE = dt.timedelta(hours=24)
#: For agents that cannot renew by themselves yet: a shorter life would end networks instead of thieves.
NODE_LIFE_UNRENEWED = dt.timedelta(days=90)
#: Clocks of home machines differ by minutes.
CLOCK_SKEW = dt.timedelta(minutes=5)
#: A P-256 request is about 500 bytes; ours never carry more than a name.
CSR_BYTES_MAX = 8 * 1024


class AuthorityError(Trouble):
    """The CA on disk cannot be used. `str()` says what and how to go on."""


class CsrRefused(Exception):
    """A signing request that gets no certificate: the agent's fault, and a retry of the same cannot help."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A node's new certificate."""

    pem: str
    #: Lower-case hexadecimal; it has up to 160 bits, more than databases count.
    serial: str
    not_after_unix_ms: int


def node_uri(node_id: str) -> str:
    """The name that a node's certificate carries."""
    return f"shrk://node/{node_id}"


def _moment(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).replace(microsecond=0)


def _unix_ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1000)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """Signs for nodes and for the coordinator itself. Safe to use from gRPC's threads."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Callable[[], int]
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self._pem = certificate.public_bytes(serialization.Encoding.PEM)
        self._lock = threading.Lock()
        self._server_renew_at = 0
        self._server: grpc.ServerCertificateConfiguration | None = None

    @classmethod
    def open(cls, state_dir: Path, clock: Callable[[], int]) -> Authority:
        """The CA of `state_dir`, made there if this is the first start. `clock` tells unix milliseconds.

        Raises AuthorityError where the folder is damaged, OSError where it cannot be written.
        """
        folder = state_dir / "ca"
        if not folder.exists():
            _make_ca(folder, clock())
        try:
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AuthorityError(
                f"the CA in {folder} cannot be read ({error}). Restore the folder from a backup; without one, "
                "move it away to get a new CA, and enrol every node again"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise AuthorityError(
                f"{folder}/ca.key does not belong to {folder}/ca.pem. Restore both from the same backup"
            )
        return cls(key, certificate, clock)

    @property
    def ca_pem(self) -> str:
        """The CA's certificate, to be trusted for links."""
        return self._pem.decode()

    def ca_digest(self) -> bytes:
        """SHA-256 of the CA certificate's DER: what join tokens pin."""
        return hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).digest()

    def ca_fingerprint(self) -> str:
        """`ca_digest` in lower-case hexadecimal, for people."""
        return self.ca_digest().hex()

    def sign_node(self, csr_pem: str, node_id: str, now: int, life: dt.timedelta = NODE_LIFE) -> SignedCertificate:
        """A client certificate for the key that signed `csr_pem`; of the request nothing else is taken over.

        Raises CsrRefused.
        """
        certificate = self._sign(
            _moment(now),
            life,
            common_name=node_id,
            public_key=csr_public_key(csr_pem),
            names=[x509.UniformResourceIdentifier(node_uri(node_id))],
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        )
        return SignedCertificate(
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            serial=f"{certificate.serial_number:x}",
            not_after_unix_ms=_unix_ms(certificate.not_valid_after_utc),
        )

    def issued(self, pem: str) -> x509.Certificate | None:
        """The certificate in `pem`, whatever its dates; None where it is not from this CA or cannot be read."""
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return None
        return certificate

    def link_credentials(self) -> grpc.ServerCredentials:
        """For the link's port: only clients with a certificate of this CA get past the handshake."""
        return self._credentials(clients_need_certificates=True)

    def enrolment_credentials(self) -> grpc.ServerCredentials:
        """For the enrolment port: TLS without client certificates; the chain ends in the CA, for pinning."""
        return self._credentials(clients_need_certificates=False)

    def _credentials(self, clients_need_certificates: bool) -> grpc.ServerCredentials:
        given = self._server_pair()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            pair = self._server_pair()
            if pair is given:
                # Handing out the same pair again would make gRPC swap it under handshakes that run beside this
                # one, and it aborts the process when it loses that race.
                return None
            given = pair
            return pair

        return grpc.dynamic_ssl_server_credentials(
            given,
            renewed,  # type: ignore[arg-type]  # grpc-stubs do not know that None means "no change"
            clients_need_certificates,
        )

    def _server_pair(self) -> grpc.ServerCertificateConfiguration:
        # gRPC calls this from its own threads at every handshake: nearly always a comparison of two numbers.
        with self._lock:
            now = self._clock()
            if self._server is None or now >= self._server_renew_at:
                self._server = self._issue_server_pair(_moment(now))
                self._server_renew_at = now + int(SERVER_LIFE.total_seconds() * 1000) // 2
            return self._server

    def _issue_server_pair(self, now: dt.datetime) -> grpc.ServerCertificateConfiguration:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in (COORDINATOR_TLS_NAME, "localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        certificate = self._sign(
            now,
            SERVER_LIFE,
            common_name=COORDINATOR_TLS_NAME,
            public_key=key.public_key(),
            names=names,
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self._pem
        return grpc.ssl_server_certificate_configuration([(_key_pem(key), chain)], root_certificates=self._pem)

    def _sign(
        self,
        now: dt.datetime,
        life: dt.timedelta,
        *,
        common_name: str,
        public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        ca_public = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def csr_public_key(csr_pem: str) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    """The key of a PKCS #10 request in PEM, proven by its signature. Raises CsrRefused."""
    remedy = "Update the node agent and enrol again."
    if len(csr_pem) > CSR_BYTES_MAX:
        raise CsrRefused(f"The signing request has {len(csr_pem)} characters; {CSR_BYTES_MAX} are allowed.", remedy)
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        public_key = csr.public_key()
        signed = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CsrRefused("The signing request cannot be read as PKCS #10 in PEM.", remedy) from error
    if not isinstance(public_key, ed25519.Ed25519PublicKey) and not (
        isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1)
    ):
        raise CsrRefused("The signing request's key is neither P-256 nor Ed25519.", remedy)
    if not signed:
        raise CsrRefused("The signing request is not signed by its own key.", remedy)
    return public_key


def public_key_sha256(public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """A digest by which a key is recognised."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def _make_ca(folder: Path, now: int) -> None:
    """Make key and certificate in a folder beside `folder`, then rename it: it exists whole or not at all."""
    moment = _moment(now)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("shrk CA"))
        .issuer_name(_name("shrk CA"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - CLOCK_SKEW)
        .not_valid_after(moment + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    making = Path(tempfile.mkdtemp(prefix="ca.making-", dir=folder.parent))  # of mode 0700
    try:
        durable.write_new(making / "ca.key", _key_pem(key), 0o600)
        durable.write_new(making / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        durable.sync_folder(making)
        try:
            making.rename(folder)
        except OSError:
            if not (folder / "ca.pem").exists():
                raise
            # Another process was quicker: its CA is the one.
        durable.sync_folder(folder.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)  # gone already, unless another process was quicker
