"""Who is behind a link, by the certificate of its connection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import pytest

from shrk_contract.v1 import refusal_pb2
from shrk_coordinator.control_plane.authority import NODE_LIFE, Authority
from shrk_coordinator.control_plane.identity import Peer, peer_of
from support.certificates import csr_for, p256

NOW = 1_795_176_000_000
LIFE_MS = NODE_LIFE // dt.timedelta(milliseconds=1)


class Connection:
    """What gRPC tells of a connection."""

    def __init__(self, pem: str | None) -> None:
        self._pem = pem

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """The properties, as gRPC names them."""
        return {} if self._pem is None else {"x509_pem_cert": [self._pem.encode()]}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path, lambda: NOW)


def test_a_node_is_known_by_its_certificate(authority: Authority) -> None:
    signed = authority.sign_node(csr_for(p256()), "node_a", NOW)
    assert peer_of(Connection(signed.pem), NOW) == Peer("node_a", signed.serial, NOW + LIFE_MS)


def test_an_expired_certificate_is_refused_though_its_connection_goes_on(authority: Authority) -> None:
    signed = authority.sign_node(csr_for(p256()), "node_a", NOW, life=dt.timedelta(hours=1))
    refused = peer_of(Connection(signed.pem), NOW + LIFE_MS)
    assert isinstance(refused, refusal_pb2.Refusal)
    assert refused.code == refusal_pb2.REFUSAL_CODE_CERTIFICATE_EXPIRED
    assert refused.message == "The certificate of node_a expired on 2026-11-20 13:00 UTC."
    assert "join token" in refused.remedy
    assert refused.permanent


def test_a_connection_without_a_certificate_is_refused() -> None:
    refused = peer_of(Connection(None), NOW)
    assert isinstance(refused, refusal_pb2.Refusal)
    assert refused.code == refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN


def test_a_certificate_that_names_no_node_is_refused(authority: Authority) -> None:
    refused = peer_of(Connection(authority.ca_pem), NOW)
    assert isinstance(refused, refusal_pb2.Refusal)
    assert refused.code == refusal_pb2.REFUSAL_CODE_NODE_UNKNOWN
