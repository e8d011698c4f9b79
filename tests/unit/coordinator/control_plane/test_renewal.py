"""Who gets a node's next certificate: whoever has its key now, while the operator has nothing against it."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shrk_contract.v1 import enrolment_pb2, refusal_pb2
from shrk_coordinator.control_plane.authority import NODE_LIFE, Authority, csr_public_key, public_key_sha256
from shrk_coordinator.control_plane.renewal import CHALLENGE_MS_MAX, LATE_MAX, Renewals
from shrk_coordinator.errors import DatabaseError
from shrk_coordinator.records import Node, Visibility
from shrk_node_agent.link.identity import Identity, new_identity
from shrk_node_agent.link.renewal import signing_request
from support.certificates import csr_for, key_pem, p256

NOW = 1_795_176_000_000
DAY_MS = 24 * 3600 * 1000
LIFE_MS = NODE_LIFE // dt.timedelta(milliseconds=1)


@dataclass
class House:
    """A coordinator that knows one node, and a clock that tests set."""

    authority: Authority
    now: int = NOW
    key: ec.EllipticCurvePrivateKey = field(default_factory=p256)
    reason: str | None = None
    unknown: bool = False
    broken: bool = False

    def __post_init__(self) -> None:
        self.renewals = Renewals(self.authority, self.look_up, lambda: self.now, os.urandom)

    async def look_up(self, node_id: str, serial: str) -> tuple[Node | None, str | None]:
        if self.broken:
            raise DatabaseError("on fire")
        digest = public_key_sha256(csr_public_key(csr_for(self.key)))
        node = Node(node_id, "o", "ann", Visibility.PUBLIC, "attic", "0.1", digest, created_at=0)
        return None if self.unknown else node, self.reason

    def identity(self, key: ec.EllipticCurvePrivateKey | None = None, authority: Authority | None = None) -> Identity:
        """The node's, made at NOW; or one of another key or CA."""
        key, authority = key or self.key, authority or self.authority
        return new_identity(
            node_id="node_a",
            key_pem=key_pem(key),
            certificate_pem=authority.sign_node(csr_for(key), "node_a", NOW).pem.encode(),
            ca_pem=authority.ca_pem.encode(),
            link_addresses=("tcp://127.0.0.1:1",),
            controller="tcp://127.0.0.1:1",
        )

    async def late(self, identity: Identity, csr_pem: str = "") -> enrolment_pb2.RenewResponse:
        asked = enrolment_pb2.RenewRequest(certificate_pem=identity.certificate_pem.decode(), csr_pem=csr_pem)
        return await self.renewals.late(asked)

    async def challenge(self, identity: Identity) -> str:
        return (await self.late(identity)).challenge


@pytest.fixture
async def house(tmp_path: Path) -> House:
    return House(Authority.open(tmp_path / "state", lambda: NOW))


async def test_over_the_link_a_node_gets_a_day_more_for_the_same_key(house: House) -> None:
    identity = house.identity()
    house.now += LIFE_MS * 2 // 3
    renewed = await house.renewals.on_link("node_a", "00", signing_request(identity))
    after = identity.renewed(renewed.certificate_pem.encode(), renewed.ca_pem.encode())
    assert after.not_after == identity.not_after + NODE_LIFE * 2 / 3


async def test_over_the_link_another_key_is_refused(house: House) -> None:
    renewed = await house.renewals.on_link("node_a", "00", csr_for(p256()))
    assert (renewed.certificate_pem, renewed.refusal.code) == ("", refusal_pb2.REFUSAL_CODE_CSR_INVALID)


async def test_a_request_that_cannot_be_read_is_refused(house: House) -> None:
    renewed = await house.renewals.on_link("node_a", "00", "garbage")
    assert renewed.refusal.code == refusal_pb2.REFUSAL_CODE_CSR_INVALID


@pytest.mark.parametrize("days_late", [0, 2, LATE_MAX.days - 1])
async def test_an_expired_certificate_is_renewed_by_proof_of_its_key(house: House, days_late: int) -> None:
    identity = house.identity()
    house.now += LIFE_MS + days_late * DAY_MS
    answer = await house.late(identity, signing_request(identity, await house.challenge(identity)))
    after = identity.renewed(answer.renewal.certificate_pem.encode(), answer.renewal.ca_pem.encode())
    after.check_dates(house.now)
    assert answer.now_unix_ms == house.now


async def test_after_180_days_the_node_must_enrol_anew(house: House) -> None:
    identity = house.identity()
    challenge = await house.challenge(identity)
    house.now += LIFE_MS + LATE_MAX.days * DAY_MS
    for csr_pem in ("", signing_request(identity, challenge)):
        refusal = (await house.late(identity, csr_pem)).refusal
        assert refusal.code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_EXPIRED
        assert "more than 180 days ago" in refusal.message
        assert "enrol the node with a new join token" in refusal.remedy
        assert refusal.permanent


async def test_an_answer_that_was_overheard_is_of_no_use(house: House) -> None:
    identity = house.identity()
    overheard = signing_request(identity, await house.challenge(identity))
    assert (await house.late(identity, overheard)).HasField("renewal")
    refusal = (await house.late(identity, overheard)).refusal
    assert refusal.message == "The challenge was answered already."
    house.now += CHALLENGE_MS_MAX + 1
    refusal = (await house.late(identity, overheard)).refusal
    assert (refusal.message, refusal.permanent) == ("The challenge is older than 60 s.", False)


async def test_what_a_node_signed_elsewhere_is_no_answer(house: House) -> None:
    identity = house.identity()
    other = House(house.authority, key=house.key)
    theirs = await other.challenge(identity)
    shifted = await house.challenge(identity)
    made_later = f"{NOW + DAY_MS:x}{shifted[shifted.index('.') :]}"
    for challenge in ("", "x", "..", theirs, made_later):
        refusal = (await house.late(identity, signing_request(identity, challenge))).refusal
        assert refusal.message.startswith("The signing request answers no challenge")


async def test_a_challenge_is_for_one_certificate(house: House) -> None:
    first, second = house.identity(), house.identity()
    answer = await house.late(second, signing_request(second, await house.challenge(first)))
    assert answer.refusal.message.startswith("The signing request answers no challenge")


async def test_another_key_does_not_help_whoever_holds_the_certificate(house: House) -> None:
    identity = house.identity()
    thief = house.identity(p256())
    answer = await house.late(identity, signing_request(thief, await house.challenge(identity)))
    assert answer.refusal.code == refusal_pb2.REFUSAL_CODE_CSR_INVALID


async def test_certificates_of_others_are_refused(house: House, tmp_path: Path) -> None:
    foreign = house.identity(authority=Authority.open(tmp_path / "other", lambda: NOW))
    for pem in (foreign.certificate_pem.decode(), house.authority.ca_pem, "garbage", "", "x" * 10_000):
        answer = await house.renewals.late(enrolment_pb2.RenewRequest(certificate_pem=pem))
        assert answer.refusal.code == refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN
        assert answer.refusal.message == "The certificate is not one that this coordinator gave to a node."


async def test_a_revoked_or_forgotten_node_is_told_so(house: House) -> None:
    identity = house.identity()
    house.reason = "sold"
    refusal = (await house.late(identity)).refusal
    assert refusal.code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_REVOKED
    assert refusal.message == "The operator of this coordinator revoked node_a: sold."
    renewed = await house.renewals.on_link("node_a", "00", signing_request(identity))
    assert renewed.refusal.code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_REVOKED
    house.unknown = True
    assert (await house.late(identity)).refusal.code == refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN


async def test_while_the_database_fails_nodes_are_told_to_come_back(house: House) -> None:
    house.broken = True
    refusal = (await house.late(house.identity())).refusal
    assert (refusal.code, refusal.permanent) == (refusal_pb2.REFUSAL_CODE_COORDINATOR_TROUBLED, False)


def test_the_certificate_of_a_node_is_recognised_by_its_issuer_alone(house: House, tmp_path: Path) -> None:
    certificate = house.authority.issued(house.identity().certificate_pem.decode())
    assert isinstance(certificate, x509.Certificate)
    assert Authority.open(tmp_path / "other", lambda: NOW).issued(house.authority.ca_pem) is None
