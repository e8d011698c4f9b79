"""The CA: made once, kept safe, and careful about what it signs."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from shrk_coordinator.control_plane.authority import (
    CSR_BYTES_MAX,
    NODE_LIFE,
    Authority,
    AuthorityError,
    CsrRefused,
)
from support.certificates import csr_for, p256

#: 2026-11-20 12:00 UTC
NOW = 1_795_176_000_000


def clock() -> int:
    return NOW


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path, clock)


def ca_of(authority: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.ca_pem.encode())


def test_the_ca_is_the_same_after_opening_again(tmp_path: Path) -> None:
    first = Authority.open(tmp_path, clock)
    second = Authority.open(tmp_path, clock)
    assert first.ca_pem == second.ca_pem
    assert first.ca_fingerprint() == second.ca_fingerprint()


def test_the_fingerprint_is_the_digest_of_the_certificate(authority: Authority) -> None:
    der = ca_of(authority).public_bytes(serialization.Encoding.DER)
    assert authority.ca_fingerprint() == hashlib.sha256(der).hexdigest()
    assert authority.ca_digest().hex() == authority.ca_fingerprint()


def test_the_cas_key_belongs_to_its_user_alone(authority: Authority, tmp_path: Path) -> None:
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_several_first_starts_at_once_agree_on_one_ca(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Authority.open(tmp_path / "state", clock), range(8)))
    assert len({authority.ca_pem for authority in opened}) == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["ca"]


def damage_by_removing_the_key(folder: Path) -> None:
    (folder / "ca.key").unlink()


def damage_by_cutting_the_certificate(folder: Path) -> None:
    (folder / "ca.pem").write_bytes((folder / "ca.pem").read_bytes()[:100])


def damage_by_another_key(folder: Path) -> None:
    Authority.open(folder / "other", clock)
    (folder / "ca.key").write_bytes((folder / "other" / "ca" / "ca.key").read_bytes())


@pytest.mark.parametrize(
    "damage", [damage_by_removing_the_key, damage_by_cutting_the_certificate, damage_by_another_key]
)
def test_a_damaged_ca_is_never_replaced_silently(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    Authority.open(tmp_path, clock)
    damage(tmp_path / "ca")
    with pytest.raises(AuthorityError, match=r"[Rr]estore"):
        Authority.open(tmp_path, clock)


@pytest.mark.parametrize("key", [p256(), ed25519.Ed25519PrivateKey.generate()], ids=["P-256", "Ed25519"])
def test_a_nodes_certificate_says_who_it_is_and_nothing_the_node_made_up(
    authority: Authority, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    signed = authority.sign_node(csr_for(key, "admin"), "node_a", NOW)
    certificate = x509.load_pem_x509_certificate(signed.pem.encode())

    assert certificate.subject.rfc4514_string() == "CN=node_a"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("shrk://node/node_a")]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.public_key() == key.public_key()
    assert signed.serial == f"{certificate.serial_number:x}"
    certificate.verify_directly_issued_by(ca_of(authority))


def test_a_nodes_certificate_has_its_life_and_forgives_five_minutes(authority: Authority) -> None:
    signed = authority.sign_node(csr_for(p256()), "node_a", NOW)
    certificate = x509.load_pem_x509_certificate(signed.pem.encode())
    now = dt.datetime.fromtimestamp(NOW / 1000, dt.UTC)
    assert certificate.not_valid_before_utc == now - dt.timedelta(minutes=5)
    assert certificate.not_valid_after_utc == now + NODE_LIFE
    assert signed.not_after_unix_ms == NOW + NODE_LIFE // dt.timedelta(milliseconds=1)


def with_a_broken_signature(csr: str) -> str:
    request = x509.load_pem_x509_csr(csr.encode())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der))
    return broken.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr", "why"),
    [
        ("", "cannot be read"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        ("x" * (CSR_BYTES_MAX + 1), "characters"),
        (csr_for(rsa.generate_private_key(65537, 2048)), "neither P-256 nor Ed25519"),
        (csr_for(ec.generate_private_key(ec.SECP384R1())), "neither P-256 nor Ed25519"),
        (with_a_broken_signature(csr_for(p256())), "not signed by its own key"),
    ],
    ids=["empty", "garbage", "too long", "RSA", "P-384", "broken signature"],
)
def test_other_signing_requests_are_refused(authority: Authority, csr: str, why: str) -> None:
    with pytest.raises(CsrRefused, match=why):
        authority.sign_node(csr, "node_a", NOW)
