"""The node's identity on disk: whole or not at all, and honest about its dates."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shrk_contract.terms import LATE_RENEWAL_DAYS_MAX
from shrk_coordinator.control_plane.authority import Authority
from shrk_node_agent.link.identity import (
    CertificateExpired,
    CertificateOutOfDate,
    Identity,
    IdentityError,
    load,
    new_identity,
    next_incarnation,
    save,
)
from support.certificates import csr_for, key_pem, p256

#: 2026-11-20 12:00 UTC
NOW = 1_795_176_000_000
HOUR_MS = 3600 * 1000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "coordinator", lambda: NOW)


@pytest.fixture
def identity(authority: Authority) -> Identity:
    return made_by(authority)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity"


def made_by(
    authority: Authority,
    key: ec.EllipticCurvePrivateKey | None = None,
    certified: ec.EllipticCurvePrivateKey | None = None,
) -> Identity:
    key = key or p256()
    return new_identity(
        node_id="node_a",
        key_pem=key_pem(key),
        certificate_pem=authority.sign_node(csr_for(certified or key), "node_a", NOW).pem.encode(),
        ca_pem=authority.ca_pem.encode(),
        link_addresses=("tcp://10.0.0.1:9100",),
        controller="tcp://10.0.0.1:9100",
    )


def test_what_is_saved_is_loaded(identity: Identity, directory: Path) -> None:
    assert load(directory) is None
    save(directory, identity)
    assert load(directory) == identity
    assert sorted(path.name for path in directory.iterdir()) == ["ca.pem", "node.json", "node.key", "node.pem"]


def test_the_key_belongs_to_its_user_alone_and_is_not_printed(identity: Identity, directory: Path) -> None:
    save(directory, identity)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "node.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(identity)


def test_a_renewed_certificate_replaces_the_old_one(authority: Authority, identity: Identity, directory: Path) -> None:
    save(directory, identity)
    key = p256()
    identity = made_by(authority, key)
    save(directory, identity)
    later = authority.sign_node(csr_for(key), "node_a", NOW + HOUR_MS)
    renewed = identity.renewed(later.pem.encode(), authority.ca_pem.encode())
    save(directory, renewed)
    assert load(directory) == renewed
    assert renewed.ca_digests() == [authority.ca_digest()]
    assert renewed.not_after == identity.not_after + dt.timedelta(hours=1)


def test_a_crash_while_another_key_is_saved_leaves_no_identity(
    authority: Authority, identity: Identity, directory: Path
) -> None:
    save(directory, identity)
    (directory / "node.pem.making").mkdir()  # makes the write fail half-way
    with pytest.raises(OSError, match=r"node\.pem\.making"):
        save(directory, made_by(authority))
    assert load(directory) is None


def test_parts_that_do_not_belong_together_are_no_identity(authority: Authority) -> None:
    with pytest.raises(IdentityError, match="does not belong to its certificate"):
        made_by(authority, certified=p256())


@pytest.mark.parametrize("name", ["node.key", "node.pem", "ca.pem"])
def test_a_damaged_folder_says_what_to_do(identity: Identity, directory: Path, name: str) -> None:
    save(directory, identity)
    (directory / name).write_text("")
    with pytest.raises(IdentityError, match=r"damaged.*enrol again") as caught:
        load(directory)
    assert str(directory) in str(caught.value)
    (directory / name).unlink()
    with pytest.raises(IdentityError, match=f"damaged.*{name} is missing"):
        load(directory)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"node_id": 1}'])
def test_a_node_json_that_is_cut_off_is_damage(identity: Identity, directory: Path, text: str) -> None:
    save(directory, identity)
    (directory / "node.json").write_text(text)
    with pytest.raises(IdentityError, match="damaged"):
        load(directory)


def test_a_certificate_is_checked_against_this_machines_clock(identity: Identity) -> None:
    identity.check_dates(NOW)
    identity.check_dates(NOW + 24 * HOUR_MS - 1000)
    with pytest.raises(CertificateExpired) as expired:
        identity.check_dates(NOW + 48 * HOUR_MS)
    assert "expired on 2026-11-21 12:00 UTC. This machine's clock says 2026-11-22 12:00 UTC." in str(expired.value)
    by_itself = (
        "If the clock is right, have the agent run and reach its coordinator: it renews the certificate by itself"
    )
    assert expired.value.remedy == f"{by_itself} until 2027-05-20 (shrk start, shrk netcheck)."
    with pytest.raises(CertificateExpired) as too_late:
        identity.check_dates(NOW + 24 * HOUR_MS * (1 + LATE_RENEWAL_DAYS_MAX))
    assert "new join token" in too_late.value.remedy
    with pytest.raises(CertificateOutOfDate, match=r"valid from 2026-11-20 11:55 UTC.*Set the clock"):
        identity.check_dates(NOW - HOUR_MS)


def test_each_start_counts_one_further_and_survives_enrolling_again(
    authority: Authority, identity: Identity, directory: Path
) -> None:
    assert [next_incarnation(directory) for _ in range(3)] == [1, 2, 3]
    save(directory, identity)
    save(directory, made_by(authority))
    assert next_incarnation(directory) == 4


def test_a_lost_count_is_not_begun_anew(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "incarnation").write_text("")
    with pytest.raises(IdentityError, match="holds no number"):
        next_incarnation(directory)
