"""What `make release` puts together, and which keys it does not take."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from installer.release import ReleaseFailed, development_key, public_key_text, read_key, release


def test_a_release_is_whole_and_signed(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    version = release(tmp_path / "dist", key)
    sums = (tmp_path / "dist" / "SHA256SUMS").read_bytes()
    key.public_key().verify((tmp_path / "dist" / "SHA256SUMS.sig").read_bytes(), sums)
    named = dict(reversed(line.split("  ")) for line in sums.decode().splitlines())
    for name, digest in named.items():
        assert hashlib.sha256((tmp_path / "dist" / name).read_bytes()).hexdigest() == digest
    wheels = {name.partition("-")[0] for name in named if name.endswith(".whl")}
    assert wheels == {"shrk_contract", "shrk_coordinator", "shrk_node_agent", "shrk_cli"}
    script = (tmp_path / "dist" / "install.sh").read_text()
    assert f"release='{version}' public_key='{public_key_text(key)}'" in script
    assert "@SHRK_URL@" in script, "that is the coordinator's to fill in"
    assert not script.endswith("\n"), "its last byte is what starts it"


def test_the_public_key_is_one_that_openssl_reads(tmp_path: Path) -> None:
    text = public_key_text(Ed25519PrivateKey.generate())
    pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    assert isinstance(serialization.load_pem_public_key(pem.encode()).public_bytes_raw(), bytes)  # type: ignore[union-attr]  # it is one of ours


def test_a_development_key_is_kept_and_is_nobody_elses_business(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "key"
    assert public_key_text(development_key(path)) == public_key_text(development_key(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseFailed, match="cannot be read"):
        read_key(tmp_path / "none")
    (tmp_path / "words").write_text("words")
    with pytest.raises(ReleaseFailed, match="no PEM private key"):
        read_key(tmp_path / "words")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, form, serialization.NoEncryption())
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(ReleaseFailed, match="openssl genpkey -algorithm ed25519"):
        read_key(tmp_path / "other")
